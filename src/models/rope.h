#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <map>
#include <vector>

namespace rtlynx::models {

/// How the sequence [text, image] is laid out: text tokens first, then a row-major grid of image tokens.
struct TokenGrid {
  int64_t text = 0;
  int64_t height = 0;  ///< rows of packed tokens, image height / size multiple
  int64_t width = 0;

  int64_t image() const { return height * width; }
  int64_t total() const { return text + image(); }
};

/// FLUX's rotary tables, made once per token grid and kept. An image token at (row, col) has the position (0, row, col)
/// on the three axes, a text token (0, 0, 0). Angles are computed in fp64, cosines and sines kept in fp32.
class RopeTables {
 public:
  /// `axes_dims`: how many of a head's channels each axis rotates (even numbers). Positions pass through
  /// `position_dtype` first, as diffusers hands them over in the embeddings' dtype: exact up to 256 in bf16.
  RopeTables(std::array<int64_t, 3> axes_dims, double theta, at::ScalarType position_dtype, at::Device device);

  /// Complex64 [grid.total(), head_dim / 2]: cos + i sin for the channel pairs (2j, 2j + 1). At most eight grids are
  /// kept; a ninth drops them all.
  const at::Tensor& at(const TokenGrid& grid);

 private:
  at::Tensor make(const TokenGrid& grid) const;

  std::array<int64_t, 3> axes_dims_;
  double theta_;
  at::ScalarType position_dtype_;
  at::Device device_;
  std::map<std::array<int64_t, 3>, at::Tensor> tables_;
};

/// Rotates x [B, S, heads, head_dim] (contiguous) by the table [S, head_dim / 2] in fp32 and returns x's dtype.
at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& table);

}  // namespace rtlynx::models
