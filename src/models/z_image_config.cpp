#include <fmt/format.h>

#include <algorithm>

#include "models/z_image_transformer.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

/// The single entry of a list of patch sizes.
int64_t single_patch(const io::Config& config, const char* key, int64_t max, int64_t otherwise) {
  if (!config.has(key)) return otherwise;
  const auto sizes = config.integers(key, 1, 64);
  if (sizes.size() != 1 || sizes.front() > max) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: {} has {} entries{}, expected a single one of at most {}", config.origin(), key,
                            sizes.size(), sizes.empty() ? "" : fmt::format(", the first {}", sizes.front()), max));
  }
  return sizes.front();
}

std::array<int64_t, 3> parse_axes_lens(const io::Config& config, const std::array<int64_t, 3>& otherwise) {
  constexpr int64_t kMaxPositions = 1 << 20;
  if (!config.has("axes_lens")) return otherwise;
  const auto values = config.integers("axes_lens", 1, kMaxPositions, otherwise.size());
  std::array<int64_t, 3> lens = {};
  if (values.size() != lens.size()) {
    throw Error(ErrorCode::kBadConfig,
                fmt::format("{}: axes_lens has {} values, expected {}", config.origin(), values.size(), lens.size()));
  }
  std::copy(values.begin(), values.end(), lens.begin());
  return lens;
}

}  // namespace

ZImageTransformerConfig ZImageTransformerConfig::parse(const io::Config& config) {
  constexpr int64_t kMaxWidth = 65536;
  if (config.has("siglip_feat_dim")) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: siglip_feat_dim is set, but only Z-Image's text-to-image models are implemented",
                            config.origin()));
  }
  ZImageTransformerConfig result;
  result.patch_size = single_patch(config, "all_patch_size", 64, result.patch_size);
  single_patch(config, "all_f_patch_size", 1, 1);  // a picture has one frame
  result.in_channels = config.integer("in_channels", 1, 4096, result.in_channels);
  result.dim = config.integer("dim", 2, kMaxWidth, result.dim);
  result.n_layers = config.integer("n_layers", 0, 1024, result.n_layers);
  result.n_refiner_layers = config.integer("n_refiner_layers", 0, 1024, result.n_refiner_layers);
  result.n_heads = config.integer("n_heads", 1, 1024, result.n_heads);
  result.norm_eps = config.number("norm_eps", 0.0, 1.0, result.norm_eps);
  result.qk_norm = config.boolean("qk_norm", result.qk_norm);
  result.cap_feat_dim = config.integer("cap_feat_dim", 1, kMaxWidth, result.cap_feat_dim);
  result.rope_theta = config.number("rope_theta", 1.0, 1e9, result.rope_theta);
  result.t_scale = config.number("t_scale", 0.0, 1e6, result.t_scale);
  if (result.dim % result.n_heads != 0) {
    throw Error(ErrorCode::kBadConfig, fmt::format("{}: dim is {}, expected a multiple of n_heads, {}", config.origin(),
                                                   result.dim, result.n_heads));
  }
  result.axes_dims = parse_rope_axes(config, "axes_dims", result.axes_dims, result.head_dim());
  result.axes_lens = parse_axes_lens(config, result.axes_lens);
  return result;
}

}  // namespace rtlynx::models
