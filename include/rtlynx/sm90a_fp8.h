#pragma once

#include <cstdint>

#include "rtlynx/sm90a.h"

/// The Hopper kernels in FP8 (e4m3): activations scaled per token, weights per output channel. See sm90a.h for what all
/// operations have in common; k must be a multiple of 128 here (kUnsupported otherwise).
///
/// A row (token of x, output channel of w) with the largest magnitude amax is stored as round(x * (448 / amax)) to the
/// nearest e4m3, ties to even, quotient and product in fp32; the stored values stand for amax / 448 times themselves.
/// amax below 2^-100 counts as 2^-100. A row with NaN or Inf multiplies to NaN. Pruning keeps the largest |x| of every
/// group of 4, so a token's amax is the same before and after it.
namespace rtlynx::sm90a {

/// Activations [m, k] in FP8 after prune and compress. A view: owns nothing.
///   blocks  compressed_fp8_bytes(m, k) bytes, 16-byte aligned: for every 64 rows, for every 128 k, one block of 5120
///           bytes (layout_fp8.h). Rows beyond m, up to the next multiple of 64, hold zeros.
///   factor  [m] fp32: what a row's products are multiplied by, amax / 448 and the norm compensation s in one
struct CompressedFp8View {
  const void* blocks = nullptr;
  const float* factor = nullptr;
  int64_t m = 0;
  int64_t k = 0;
};
struct MutableCompressedFp8View {
  void* blocks = nullptr;
  float* factor = nullptr;
  int64_t m = 0;
  int64_t k = 0;
};
inline CompressedFp8View read_only(const MutableCompressedFp8View& view) {
  return {view.blocks, view.factor, view.m, view.k};
}

/// Bytes of `blocks`: 80 per row and 128 k, rows rounded up to 64. 0.3125 of the dense bf16 matrix.
/// kInvalidArgument for m or k < 1, kUnsupported unless k % 128 == 0.
Result<int64_t> compressed_fp8_bytes(int64_t m, int64_t k);

/// Prunes x [m, k] (kBF16, data and rows 16-byte aligned) to 2:4 by prune_compress's rule on the bf16 values, then
/// quantises what is kept; one pass, every element is read once. k at most 24576.
/// factor = s * (amax / 448), both rounded to fp32, or amax / 448 without `norm_compensation`. The sums of s have an
/// order of their own (prune_compress_fp8_config.h).
Status prune_compress_fp8(const MatrixView& x, const MutableCompressedFp8View& out, bool norm_compensation,
                          Stream stream);

/// A weight in FP8: values [n, k] (kF8E4M3, row by row; data and rows 16-byte aligned), which mean factor[j] * values.
struct Fp8Weight {
  MatrixView values{};
  const float* factor = nullptr;  ///< [n] fp32, 16-byte aligned
};

/// Quantises w [n, k] (kBF16) to `values` [n, k] (kF8E4M3) and `factor` [n]: done once for a weight, not tuned.
Status quantize_weight_fp8(const MatrixView& w, const MutableMatrixView& values, float* factor, Stream stream);

/// d [m, n] (kBF16) = a.factor_i * w.factor_j * (A W^T) + T L_B + bias, and then what spmm's options ask for: GELU, or
/// a gate and residual. n % 8 == 0, k % 128 == 0, any m >= 1. Products and their sums are the tensor cores' FP8 ones,
/// of which only about 14 bits are kept while they are added up (docs/kernels-hopper.md has the bound and what was
/// measured); sums of integers below 2^13 are exact. Then, each rounded to fp32, times the row's factor, times the
/// column's, + T L_B (in bf16 with fp32 sums), + bias, and one rounding to bf16. options.use_scale must be true:
/// `factor` cannot be left out.
Status spmm_fp8(const CompressedFp8View& a, const Fp8Weight& w, const MutableMatrixView& d, const SpmmOptions& options,
                Stream stream);

}  // namespace rtlynx::sm90a
