#include "pipeline/flux_components.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "io/model_folder.h"
#include "pipeline/latents.h"
#include "rtlynx/status.h"

namespace rtlynx::pipeline {
namespace {

/// tokenizer classes come in a slow and a fast kind that read the same files.
std::filesystem::path tokenizer_folder(const io::ModelFolder& folder, std::string_view component,
                                       const std::string& class_name) {
  const auto* listed = folder.find(component);
  const bool fast = listed != nullptr && listed->class_name == class_name + "Fast";
  return folder.component(component, fast ? class_name + "Fast" : class_name);
}

void check_equal(const io::ModelFolder& folder, std::string_view left, int64_t left_value, std::string_view right,
                 int64_t right_value) {
  if (left_value == right_value) return;
  throw Error(ErrorCode::kBadConfig, fmt::format("{}: {} is {}, but {} is {}, expected the same",
                                                 folder.path().string(), left, left_value, right, right_value));
}

void check_fit(const io::ModelFolder& folder, const FluxComponents& parts) {
  const auto& transformer = parts.transformer.config();
  const auto& vae = parts.vae.config();
  check_equal(folder, "text_encoder's hidden_size", parts.text_encoder.config().hidden_size,
              "transformer's pooled_projection_dim", transformer.pooled_projection_dim);
  check_equal(folder, "text_encoder_2's d_model", parts.text_encoder_2.config().d_model,
              "transformer's joint_attention_dim", transformer.joint_attention_dim);
  check_equal(folder, "transformer's in_channels", transformer.in_channels, "4 x vae's latent_channels",
              kPacking * kPacking * vae.latent_channels);
  check_equal(folder, "transformer's out_channels", transformer.out_channels, "its in_channels",
              transformer.in_channels);
  check_equal(folder, "vae's out_channels", vae.out_channels, "the number of colours", 3);
}

void check_dtype(const Placement& placement) {
  if (placement.dtype == at::kFloat || placement.dtype == at::kBFloat16) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("dtype is {}, expected fp32 (Float) or bf16 (BFloat16)", at::toString(placement.dtype)));
}

}  // namespace

FluxComponents FluxComponents::load(const std::filesystem::path& model_folder, const Placement& placement) {
  check_dtype(placement);
  const auto folder = io::ModelFolder::open(model_folder);
  folder.expect_class("FluxPipeline");
  // Small files first: a folder with a wrong part is refused before gigabytes are read.
  models::FlowMatchEulerScheduler scheduler =
      models::FlowMatchEulerScheduler::load(folder.component("scheduler", "FlowMatchEulerDiscreteScheduler"));
  models::ClipTokenizer tokenizer(tokenizer_folder(folder, "tokenizer", "CLIPTokenizer"));
  models::T5Tokenizer tokenizer_2(tokenizer_folder(folder, "tokenizer_2", "T5Tokenizer"));
  const auto transformer_folder = folder.component("transformer", "FluxTransformer2DModel");
  const auto vae_folder = folder.component("vae", "AutoencoderKL");
  const auto clip_folder = folder.component("text_encoder", "CLIPTextModel");
  const auto t5_folder = folder.component("text_encoder_2", "T5EncoderModel");
  FluxComponents parts = {placement,
                          std::move(tokenizer),
                          std::move(tokenizer_2),
                          models::ClipTextModel::load(clip_folder, placement),
                          models::T5Encoder::load(t5_folder, placement),
                          models::FluxTransformer2DModel::load(transformer_folder, placement),
                          models::AutoencoderKlDecoder::load(vae_folder, placement),
                          scheduler};
  check_fit(folder, parts);
  return parts;
}

SizeRule FluxComponents::size_rule() const {
  return {vae.config().scale_factor(), kPacking};
}

}  // namespace rtlynx::pipeline
