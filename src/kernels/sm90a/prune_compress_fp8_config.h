#pragma once

#include <cstdint>
#include <string>

#include "kernels/sm90a/layout_fp8.h"
#include "rtlynx/sm90a_fp8.h"

/// Host arithmetic of prune_compress_fp8 and quantize_weight_fp8.
///
/// Work: a row belongs to one warp up to k = 3072, to two up to 6144, four up to 12288 and eight up to 24576, since a
/// value cannot be stored before the whole row's largest magnitude is known: until then a lane keeps what survives in
/// registers, at most 6 units of 16 k (4 words each). Lane l of warp w of a row with W warps has the units
/// l + 32 w + 32 W j, j = 0, 1, ..: a warp reads 1 KiB and writes four runs of 64 bytes at a time.
///
/// Order of the sums (x^2 and x~^2 alike): each lane over its rising k by fused multiply-adds from 0; then over the
/// warp's lanes by five rounds of v[l] += v[l ^ 1], v[l ^ 2], .. v[l ^ 16]; then warp 0 + warp 1 + .. of the row.
///
/// Expected time: 2.625 bytes an element (2 read, 0.625 written) at 2.8-3.0 TB/s: 33.0 MB and 11-12 us for 4096 x 3072,
/// 132 MB and 44-47 us for 4096 x 12288, and 2-3 us for start and end. About 50 instructions a group of 4 need half of
/// that.
namespace rtlynx::sm90a {

inline constexpr int kFp8PruneWarps = 8;  ///< of a CTA
inline constexpr int kFp8PruneUnits = 6;  ///< of 16 k that a lane keeps at most
/// CTAs on one multiprocessor (64 registers a thread): 528 on an H100, so that 4096 rows of 3072 are one wave.
inline constexpr int kFp8PruneCtasPerSm = 4;
inline constexpr int kFp8PruneMaxK = kFp8PruneWarps * kFp8PruneUnits * 512;

/// Warps that share a row: 1, 2, 4 or 8.
constexpr int fp8_warps_per_row(int64_t k) {
  int warps = 1;
  while (warps < kFp8PruneWarps && k > int64_t{kFp8PruneUnits} * 512 * warps) warps *= 2;
  return warps;
}

struct PruneCompressFp8Plan {
  int64_t k_blocks = 0;
  int64_t rows = 0;  ///< m rounded up to whole blocks
  int warps_per_row = 1;
  int64_t ctas = 0;
};

/// Checks everything that prune_compress_fp8 documents, then plans.
Result<PruneCompressFp8Plan> plan_prune_compress_fp8(const MatrixView& x, const MutableCompressedFp8View& out);

/// Checks sizes and blocks; messages begin with `what`.
Status check_compressed_fp8(const std::string& what, const CompressedFp8View& view);

/// Checks what quantize_weight_fp8 documents.
Status check_quantize_weight_fp8(const MatrixView& w, const MutableMatrixView& values, const float* factor);

}  // namespace rtlynx::sm90a
