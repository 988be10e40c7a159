#include "models/autoencoder_kl.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

void check_types(const io::Config& config, std::size_t blocks) {
  const std::string activation = config.text("act_fn", "silu");
  if (activation != "silu") {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: act_fn is \"{}\", expected silu", config.origin(), activation));
  }
  const auto types =
      config.has("up_block_types") ? config.texts("up_block_types", 16) : std::vector<std::string>{"UpDecoderBlock2D"};
  if (types.size() != blocks) {
    throw Error(ErrorCode::kBadConfig, fmt::format("{}: {} up_block_types for {} block_out_channels, expected as many",
                                                   config.origin(), types.size(), blocks));
  }
  for (const auto& type : types) {
    if (type == "UpDecoderBlock2D") continue;
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: up_block_types names \"{}\", expected UpDecoderBlock2D", config.origin(), type));
  }
}

}  // namespace

AutoencoderKlConfig AutoencoderKlConfig::parse(const io::Config& config) {
  constexpr int64_t kMaxChannels = 8192;
  AutoencoderKlConfig result;
  result.latent_channels = config.integer("latent_channels", 1, kMaxChannels, result.latent_channels);
  result.out_channels = config.integer("out_channels", 1, kMaxChannels, result.out_channels);
  if (config.has("block_out_channels")) {
    result.block_out_channels = config.integers("block_out_channels", 1, kMaxChannels, 16);
  }
  if (result.block_out_channels.empty()) {
    throw Error(ErrorCode::kBadConfig, fmt::format("{}: block_out_channels is empty", config.origin()));
  }
  result.layers_per_block = config.integer("layers_per_block", 0, 64, result.layers_per_block);
  result.norm_num_groups = config.integer("norm_num_groups", 1, kMaxChannels, result.norm_num_groups);
  for (const int64_t channels : result.block_out_channels) {
    if (channels % result.norm_num_groups == 0) continue;
    throw Error(ErrorCode::kBadConfig,
                fmt::format("{}: block_out_channels [{}], expected multiples of norm_num_groups, {}", config.origin(),
                            fmt::join(result.block_out_channels, ", "), result.norm_num_groups));
  }
  result.sample_size = config.integer("sample_size", 1, 1 << 16, result.sample_size);
  result.scaling_factor = config.number("scaling_factor", 1e-6, 1e6, result.scaling_factor);
  result.shift_factor = config.number("shift_factor", -1e6, 1e6, result.shift_factor);
  result.use_post_quant_conv = config.boolean("use_post_quant_conv", result.use_post_quant_conv);
  result.mid_block_add_attention = config.boolean("mid_block_add_attention", result.mid_block_add_attention);
  check_types(config, result.block_out_channels.size());
  return result;
}

AutoencoderKlDecoder::AutoencoderKlDecoder(const AutoencoderKlConfig& config, Weights& weights)
    : config_(config),
      conv_in_(weights, "decoder.conv_in", config.latent_channels, config.block_out_channels.back(), 3),
      mid_block_(weights, "decoder.mid_block", config.block_out_channels.back(), config.norm_num_groups,
                 config.mid_block_add_attention),
      conv_norm_out_(weights, "decoder.conv_norm_out", config.block_out_channels.front(), config.norm_num_groups),
      conv_out_(weights, "decoder.conv_out", config.block_out_channels.front(), config.out_channels, 3) {
  if (config.use_post_quant_conv) {
    post_quant_conv_.emplace(weights, "post_quant_conv", config.latent_channels, config.latent_channels, 1);
  }
  int64_t in = config.block_out_channels.back();
  for (std::size_t i = 0; i < config.block_out_channels.size(); ++i) {
    const int64_t out = config.block_out_channels[config.block_out_channels.size() - 1 - i];
    const bool last = i + 1 == config.block_out_channels.size();
    up_blocks_.emplace_back(weights, fmt::format("decoder.up_blocks.{}", i), in, out, config.layers_per_block + 1,
                            config.norm_num_groups, !last);
    in = out;
  }
}

AutoencoderKlDecoder AutoencoderKlDecoder::load(const std::filesystem::path& folder, const Placement& placement) {
  const auto config = AutoencoderKlConfig::parse(io::Config::read(folder / "config.json"));
  Weights weights = Weights::load(folder, placement);
  AutoencoderKlDecoder decoder(config, weights);
  weights.finish({"encoder.", "quant_conv."});
  return decoder;
}

at::Tensor AutoencoderKlDecoder::decode(const at::Tensor& latents, const BlockObserver& observer) const {
  const c10::InferenceMode inference;
  if (latents.dim() != 4 || latents.size(1) != config_.latent_channels) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("latents to decode: got shape [{}], expected [batch, {}, height, width]",
                            fmt::join(latents.sizes(), ", "), config_.latent_channels));
  }
  const auto observed = [&](std::string_view module, at::Tensor value) {
    if (observer) observer(module, value);
    return value;
  };
  at::Tensor x = post_quant_conv_ ? observed("post_quant_conv", (*post_quant_conv_)(latents)) : latents;
  x = observed("decoder.conv_in", conv_in_(x));
  x = observed("decoder.mid_block", mid_block_(x));
  for (std::size_t i = 0; i < up_blocks_.size(); ++i) {
    x = observed(fmt::format("decoder.up_blocks.{}", i), up_blocks_[i](std::move(x)));
  }
  return observed("decoder.conv_out", conv_out_(at::silu(conv_norm_out_(x))));
}

}  // namespace rtlynx::models
