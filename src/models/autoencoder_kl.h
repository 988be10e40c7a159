#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "linear/weights.h"
#include "models/vae_blocks.h"

namespace rtlynx::models {

/// vae/config.json of AutoencoderKL as far as decoding needs it; defaults are diffusers'.
struct AutoencoderKlConfig {
  int64_t latent_channels = 4;
  int64_t out_channels = 3;
  std::vector<int64_t> block_out_channels = {64};  ///< widths from the image inwards
  int64_t layers_per_block = 1;
  int64_t norm_num_groups = 32;
  int64_t sample_size = 32;  ///< pixels of the images it was trained on
  double scaling_factor = 0.18215;
  double shift_factor = 0.0;
  bool use_post_quant_conv = true;
  bool mid_block_add_attention = true;

  /// Pixels per latent: 2^(number of widths - 1).
  int64_t scale_factor() const { return int64_t{1} << (block_out_channels.size() - 1); }
  /// Throws kBadConfig for values out of bounds or widths that norm_num_groups does not divide, kUnsupported for other
  /// block types and activations than UpDecoderBlock2D and silu.
  static AutoencoderKlConfig parse(const io::Config& config);
};

/// The decoder half of diffusers' AutoencoderKL.
class AutoencoderKlDecoder {
 public:
  AutoencoderKlDecoder(const AutoencoderKlConfig& config, Weights& weights);
  /// Reads `<folder>/config.json` and the weights beside it. The encoder's tensors (encoder.*, quant_conv.*) are
  /// expected and left unread; others that the decoder does not have are refused.
  static AutoencoderKlDecoder load(const std::filesystem::path& folder, const Placement& placement);

  /// Called with a module's path and its result, in order of execution.
  using BlockObserver = std::function<void(std::string_view module, const at::Tensor& value)>;

  /// latents [B, latent_channels, h, w], already unscaled (latents / scaling_factor + shift_factor), in the model's
  /// dtype -> images [B, out_channels, h * scale_factor, w * scale_factor], about -1 to 1.
  at::Tensor decode(const at::Tensor& latents, const BlockObserver& observer = {}) const;

  const AutoencoderKlConfig& config() const { return config_; }

 private:
  AutoencoderKlConfig config_;
  std::optional<SameConv2d> post_quant_conv_;
  SameConv2d conv_in_;
  VaeMidBlock mid_block_;
  std::vector<VaeUpBlock> up_blocks_;
  GroupNorm conv_norm_out_;
  SameConv2d conv_out_;
};

}  // namespace rtlynx::models
