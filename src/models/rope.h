#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "io/json.h"

namespace rtlynx::models {

/// The tokens that one image's attention sees: text tokens and a row-major grid of image tokens, in the model's order.
struct TokenGrid {
  int64_t text = 0;
  int64_t height = 0;  ///< rows of packed tokens, image height / size multiple
  int64_t width = 0;

  int64_t image() const { return height * width; }
};

/// In which precision a model makes its rotary angles (position x theta^(-2i / d)). At position 1,000 an angle rounded
/// to fp32 is off by up to 3e-5, so that this is part of a model.
enum class RopeAngles {
  kDouble,         ///< fp64 up to the cosine and sine, which are rounded to fp32 (FLUX)
  kRoundedDouble,  ///< fp64, rounded to fp32 before the cosine and sine (Z-Image)
  kFloat,          ///< fp32 from the frequencies on (Qwen-Image)
};

struct RopeSettings {
  std::array<int64_t, 3> axes_dims = {};  ///< how many of a head's channels each axis rotates (even numbers)
  double theta = 10000.0;
  RopeAngles angles = RopeAngles::kDouble;
};

/// Reads a config's three axes under `key`: even numbers that add up to head_dim. Throws kBadConfig.
std::array<int64_t, 3> parse_rope_axes(const io::Config& config, const std::string& key,
                                       const std::array<int64_t, 3>& otherwise, int64_t head_dim);

/// Positions on the three axes, fp64 [height * width, 3]: (frame, first_row + row, first_col + col), row-major.
at::Tensor grid_positions(double frame, int64_t first_row, int64_t height, int64_t first_col, int64_t width);

/// Rotary tables, made once per token grid and kept.
class RopeTables {
 public:
  /// The positions of all tokens in the model's order, fp64 [tokens, 3] on the CPU.
  using Positions = std::function<at::Tensor(const TokenGrid& grid)>;
  RopeTables(const RopeSettings& settings, Positions positions, at::Device device);

  /// Complex64 [tokens, head_dim / 2]: cos + i sin for the channel pairs (2j, 2j + 1). At most eight grids are kept; a
  /// ninth drops them all.
  at::Tensor at(const TokenGrid& grid);

 private:
  at::Tensor make(const TokenGrid& grid) const;

  RopeSettings settings_;
  Positions positions_;
  at::Device device_;
  std::map<std::array<int64_t, 3>, at::Tensor> tables_;
};

/// Rotates x [B, S, heads, head_dim] (contiguous) in fp32 by a table [S, head_dim / 2] for all images, or
/// [B, S, head_dim / 2] with one for each, and returns x's dtype.
at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& table);

}  // namespace rtlynx::models
