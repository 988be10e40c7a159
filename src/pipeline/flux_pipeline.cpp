#include "pipeline/flux_pipeline.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "pipeline/flux_components.h"
#include "pipeline/latents.h"
#include "pipeline/non_finite.h"
#include "pipeline/torch_errors.h"
#include "rtlynx/status.h"

namespace rtlynx::pipeline {
namespace {

constexpr int64_t kMaxSequenceLength = 512;  // diffusers refuses more
constexpr int64_t kClipLength = 77;          // where the tokenizer's config names no limit

using Clock = std::chrono::steady_clock;

/// A prompt as the two text encoders take it.
struct PromptTokens {
  models::TokenIds clip;
  models::TokenIds t5;
};

at::Tensor ids_tensor(const std::vector<models::TokenIds>& rows) {
  std::vector<at::Tensor> tensors;
  for (const auto& row : rows) tensors.push_back(at::tensor(row.ids, at::kLong));
  return at::stack(tensors);
}

void expect_rows(std::string_view what, int64_t rows, int64_t expected) {
  if (rows == expected) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{} for {} images, expected {}", rows, expected, what));
}

/// Row `row`, `count` times.
PromptEmbeddings repeat_row(const PromptEmbeddings& embeddings, int64_t row, int64_t count) {
  return {embeddings.prompt_embeds.narrow(0, row, 1).expand({count, -1, -1}).contiguous(),
          embeddings.pooled_prompt_embeds.narrow(0, row, 1).expand({count, -1}).contiguous()};
}

models::FluxTransformerInput with_prompts(models::FluxTransformerInput input, const PromptEmbeddings& prompts) {
  input.encoder_hidden_states = prompts.prompt_embeds;
  input.pooled_projections = prompts.pooled_prompt_embeds;
  return input;
}

void check_embeddings(const PromptEmbeddings& embeddings) {
  std::string found;
  if (!all_finite(embeddings.pooled_prompt_embeds)) {
    found = describe_non_finite("text_encoder", "pooled_prompt_embeds", embeddings.pooled_prompt_embeds);
  } else if (!all_finite(embeddings.prompt_embeds)) {
    found = describe_non_finite("text_encoder_2", "prompt_embeds", embeddings.prompt_embeds);
  }
  if (!found.empty()) throw Error(ErrorCode::kNonFinite, "encoding the prompt: " + found);
}

}  // namespace

struct FluxPipeline::State {
  FluxComponents parts;
  StepObserver observer{};

  int64_t default_max_sequence_length() const;
  PromptTokens tokenize(const std::string& prompt, int64_t max_sequence_length) const;
  models::FluxTransformerInput transformer_input(const PromptEmbeddings& prompts, const at::Tensor& latents,
                                                 float timestep, const DenoiseOptions& options) const;
  at::Tensor predict(const models::FluxTransformerInput& prompts, const PromptEmbeddings* negative,
                     double true_cfg_scale);
  [[noreturn]] void report_non_finite(const models::FluxTransformerInput& input, const PromptEmbeddings* negative,
                                      const at::Tensor& latents, int64_t step, int64_t steps);
  at::Tensor decode_one(const at::Tensor& packed, int64_t h, int64_t w, const std::string& which) const;
};

int64_t FluxPipeline::State::default_max_sequence_length() const {
  const int64_t limit = parts.tokenizer_2.model_max_length();
  return limit > 0 ? std::min(limit, kMaxSequenceLength) : kMaxSequenceLength;
}

PromptTokens FluxPipeline::State::tokenize(const std::string& prompt, int64_t max_sequence_length) const {
  if (max_sequence_length == 0) max_sequence_length = default_max_sequence_length();
  check_max_sequence_length(max_sequence_length, kMaxSequenceLength);
  const int64_t clip_length = parts.tokenizer.model_max_length() > 0 ? parts.tokenizer.model_max_length() : kClipLength;
  return {parts.tokenizer.encode(prompt, clip_length), parts.tokenizer_2.encode(prompt, max_sequence_length)};
}

models::FluxTransformerInput FluxPipeline::State::transformer_input(const PromptEmbeddings& prompts,
                                                                    const at::Tensor& latents, float timestep,
                                                                    const DenoiseOptions& options) const {
  const int64_t batch = latents.size(0);
  const auto fp32 = at::dtype(at::kFloat).device(parts.placement.device);
  models::FluxTransformerInput input;
  input.hidden_states = latents;
  input.encoder_hidden_states = prompts.prompt_embeds;
  input.pooled_projections = prompts.pooled_prompt_embeds;
  // 1000 sigma is rounded to the model's dtype before it is divided: diffusers' order, which bf16 shows.
  input.timestep = at::full({batch}, timestep, fp32).to(parts.placement.dtype) / 1000;
  if (parts.transformer.config().guidance_embeds) input.guidance = at::full({batch}, options.guidance_scale, fp32);
  input.height = options.height / parts.size_rule().multiple();
  input.width = options.width / parts.size_rule().multiple();
  return input;
}

at::Tensor FluxPipeline::State::predict(const models::FluxTransformerInput& input, const PromptEmbeddings* negative,
                                        double true_cfg_scale) {
  const at::Tensor prediction = parts.transformer.forward(input);
  if (negative == nullptr) return prediction;
  const at::Tensor opposite = parts.transformer.forward(with_prompts(input, *negative));
  return opposite + true_cfg_scale * (prediction - opposite);
}

void FluxPipeline::State::report_non_finite(const models::FluxTransformerInput& input, const PromptEmbeddings* negative,
                                            const at::Tensor& latents, int64_t step, int64_t steps) {
  std::string found = find_non_finite(parts.transformer, input);
  if (found.empty() && negative != nullptr) {
    found = find_non_finite(parts.transformer, with_prompts(input, *negative));
    if (!found.empty()) found = "negative prompt: " + found;
  }
  if (found.empty()) found = describe_non_finite("the scheduler's step", "latents", latents);
  throw Error(ErrorCode::kNonFinite, fmt::format("denoising step {} of {}: {}", step, steps, found));
}

FluxPipeline::FluxPipeline(std::unique_ptr<State> state) : state_(std::move(state)) {}
FluxPipeline::~FluxPipeline() = default;
FluxPipeline::FluxPipeline(FluxPipeline&&) noexcept = default;
FluxPipeline& FluxPipeline::operator=(FluxPipeline&&) noexcept = default;

FluxPipeline FluxPipeline::load(const std::filesystem::path& model_folder, const Placement& placement) {
  const c10::InferenceMode inference;
  return with_torch_errors("loading the model", [&] {
    return FluxPipeline(std::unique_ptr<State>(new State{FluxComponents::load(model_folder, placement)}));
  });
}

PromptEmbeddings FluxPipeline::encode_prompts(const std::vector<std::string>& prompts,
                                              int64_t max_sequence_length) const {
  const c10::InferenceMode inference;
  if (prompts.empty()) throw Error(ErrorCode::kInvalidArgument, "no prompts given, expected at least one");
  std::vector<models::TokenIds> clip_rows, t5_rows;
  for (const auto& prompt : prompts) {
    PromptTokens tokens = state_->tokenize(prompt, max_sequence_length);
    clip_rows.push_back(std::move(tokens.clip));
    t5_rows.push_back(std::move(tokens.t5));
  }
  return with_torch_errors("encoding the prompt", [&] {
    const auto& parts = state_->parts;
    PromptEmbeddings result;
    result.pooled_prompt_embeds = parts.text_encoder(ids_tensor(clip_rows)).pooled;
    result.prompt_embeds = parts.text_encoder_2(ids_tensor(t5_rows));
    check_embeddings(result);
    return result;
  });
}

std::vector<Truncation> FluxPipeline::truncations(const std::string& prompt, int64_t max_sequence_length) const {
  const PromptTokens tokens = state_->tokenize(prompt, max_sequence_length);
  std::vector<Truncation> result;
  const auto add = [&](const char* encoder, const models::TokenIds& row) {
    if (row.tokens_dropped > 0) result.push_back({encoder, row.tokens_dropped, static_cast<int64_t>(row.ids.size())});
  };
  add("text_encoder", tokens.clip);
  add("text_encoder_2", tokens.t5);
  return result;
}

at::Tensor FluxPipeline::initial_latents(const std::vector<uint64_t>& seeds, int64_t width, int64_t height) const {
  const c10::InferenceMode inference;
  const auto& parts = state_->parts;
  check_size(parts.size_rule(), width, height);
  if (seeds.empty()) throw Error(ErrorCode::kInvalidArgument, "no seeds given, expected one per image");
  const int64_t factor = parts.vae.config().scale_factor();
  return with_torch_errors("drawing the noise", [&] {
    const at::Tensor noise =
        draw_noise(seeds, parts.vae.config().latent_channels, height / factor, width / factor, parts.placement.dtype);
    return pack_latents(noise.to(parts.placement.device));
  });
}

at::Tensor FluxPipeline::denoise(const PromptEmbeddings& prompts, const PromptEmbeddings* negative, at::Tensor latents,
                                 const DenoiseOptions& asked, const ProgressCallback& progress) {
  const c10::InferenceMode inference;
  const DenoiseOptions options = resolved(asked);
  const bool guided = options.true_cfg_scale > 1;
  if (guided != (negative != nullptr)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("true_cfg_scale is {}, {} negative prompt embeddings", options.true_cfg_scale,
                            guided ? "which needs" : "which excludes"));
  }
  expect_rows("as many prompts", prompts.size(), latents.size(0));
  if (negative != nullptr) expect_rows("as many negative prompts", negative->size(), latents.size(0));
  const auto& scheduler = state_->parts.scheduler;
  const auto sigmas = scheduler.sigmas(options.num_inference_steps, latents.size(1));
  const auto start = Clock::now();
  return with_torch_errors("denoising", [&] {
    for (int64_t i = 0; i < options.num_inference_steps; ++i) {
      const auto input = state_->transformer_input(prompts, latents, scheduler.timestep(sigmas[i]), options);
      const at::Tensor prediction = state_->predict(input, negative, options.true_cfg_scale);
      if (state_->observer) state_->observer(i, latents, prediction);
      latents = models::FlowMatchEulerScheduler::step(prediction, latents, sigmas[i], sigmas[i + 1]);
      if (!all_finite(latents)) {
        state_->report_non_finite(input, negative, latents, i + 1, options.num_inference_steps);
      }
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (progress && !progress(i + 1, options.num_inference_steps, seconds)) {
        throw Error(ErrorCode::kCancelled,
                    fmt::format("stopped after denoising step {} of {}", i + 1, options.num_inference_steps));
      }
    }
    return latents;
  });
}

StepObserver FluxPipeline::set_step_observer(StepObserver observer) {
  return std::exchange(state_->observer, std::move(observer));
}

at::Tensor FluxPipeline::predict_velocity(const PromptEmbeddings& prompts, const at::Tensor& latents, int64_t step,
                                          const DenoiseOptions& asked) {
  const c10::InferenceMode inference;
  const DenoiseOptions options = resolved(asked);
  if (step < 0 || step >= options.num_inference_steps) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("step {} of {}, expected 0 to {}", step,
                                                         options.num_inference_steps, options.num_inference_steps - 1));
  }
  expect_rows("as many prompts", prompts.size(), latents.size(0));
  const auto& scheduler = state_->parts.scheduler;
  const auto sigmas = scheduler.sigmas(options.num_inference_steps, latents.size(1));
  const float timestep = scheduler.timestep(sigmas[static_cast<std::size_t>(step)]);
  return with_torch_errors("predicting a velocity", [&] {
    return state_->predict(state_->transformer_input(prompts, latents, timestep, options), nullptr, 1.0);
  });
}

at::Tensor FluxPipeline::State::decode_one(const at::Tensor& packed, int64_t h, int64_t w,
                                           const std::string& which) const {
  const at::Tensor scaled = unpack_latents(packed, h, w) / parts.vae.config().scaling_factor;
  const at::Tensor latents = scaled + parts.vae.config().shift_factor;
  const at::Tensor image = parts.vae.decode(latents);
  if (!all_finite(image)) {
    throw Error(ErrorCode::kNonFinite,
                fmt::format("decoding image {}: vae: {}", which, find_non_finite(parts.vae, latents)));
  }
  return to_rgb8(image).to(at::kCPU);
}

std::vector<Image> FluxPipeline::decode(const at::Tensor& latents, int64_t width, int64_t height,
                                        const std::vector<uint64_t>& seeds) const {
  const c10::InferenceMode inference;
  const auto& parts = state_->parts;
  check_size(parts.size_rule(), width, height);
  const auto count = static_cast<int64_t>(seeds.size());
  expect_rows("as many latents", latents.size(0), count);
  const int64_t h = height / parts.size_rule().multiple();
  const int64_t w = width / parts.size_rule().multiple();
  if (latents.dim() != 3 || latents.size(1) != h * w || latents.size(2) != parts.transformer.config().in_channels) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("latents to decode: expected [{}, {}, {}] for {}x{} pixels", count, h * w,
                            parts.transformer.config().in_channels, width, height));
  }
  return with_torch_errors("decoding", [&] {
    std::vector<Image> images;
    for (int64_t i = 0; i < count; ++i) {
      // One by one, so that a batch gives the bytes of single runs and needs the memory of one.
      const std::string which = fmt::format("{} of {} (seed {})", i + 1, count, seeds[i]);
      const at::Tensor rgb = state_->decode_one(latents.narrow(0, i, 1), h, w, which);
      Image image = {width, height, std::vector<uint8_t>(static_cast<std::size_t>(rgb.numel())), seeds[i]};
      std::memcpy(image.rgb.data(), rgb.const_data_ptr(), image.rgb.size());
      images.push_back(std::move(image));
    }
    return images;
  });
}

std::vector<Image> FluxPipeline::generate(const GenerateOptions& options, const ProgressCallback& progress) {
  const c10::InferenceMode inference;
  check_image_count(options.num_images_per_prompt);
  const DenoiseOptions run = resolved(options);
  const bool guided = options.true_cfg_scale > 1;
  const int64_t count = options.num_images_per_prompt;

  // Row by row: a batch of prompts would not change the result, but the last bits of it.
  const PromptEmbeddings prompts = repeat_row(encode_prompts({options.prompt}, options.max_sequence_length), 0, count);
  std::optional<PromptEmbeddings> negative;
  if (guided) {
    negative = repeat_row(encode_prompts({options.negative_prompt}, options.max_sequence_length), 0, count);
  }
  std::vector<uint64_t> seeds;
  for (int64_t i = 0; i < count; ++i) seeds.push_back(options.seed + static_cast<uint64_t>(i));
  const at::Tensor noise = initial_latents(seeds, run.width, run.height);
  const at::Tensor latents = denoise(prompts, negative ? &*negative : nullptr, noise, run, progress);
  return decode(latents, run.width, run.height, seeds);
}

DenoiseOptions FluxPipeline::resolved(const DenoiseOptions& options) const {
  DenoiseOptions result = options;
  if (result.width == 0) result.width = default_size();
  if (result.height == 0) result.height = default_size();
  check_size(state_->parts.size_rule(), result.width, result.height);
  check_denoise_options(result);
  return result;
}

models::FluxTransformer2DModel& FluxPipeline::transformer() {
  return state_->parts.transformer;
}

const Placement& FluxPipeline::placement() const {
  return state_->parts.placement;
}

int64_t FluxPipeline::default_size() const {
  return state_->parts.vae.config().sample_size;
}

int64_t FluxPipeline::size_multiple() const {
  return state_->parts.size_rule().multiple();
}

int64_t FluxPipeline::default_max_sequence_length() const {
  return state_->default_max_sequence_length();
}

}  // namespace rtlynx::pipeline
