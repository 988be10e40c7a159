#pragma once

#include <cstdint>

#include "kernels/sm90a/layout.h"
#include "rtlynx/sm90a.h"

/// Host arithmetic of prune_compress.
///
/// Work: a CTA owns 16 rows and all of their k, because a row's scale needs the whole row. Its 8 warps take the blocks
/// of 64 k in turn. Lane l of a warp owns rows l / 4 and l / 4 + 8 and k = 16 (l % 4) .. + 15 of a block: two 16-byte
/// loads a row, whole groups of 4, one 16-byte store of values a row and exactly the lane's metadata word, so that no
/// lane needs another one's data before the sums of the row.
///
/// Order of the sums (x^2 and x~^2 alike), which makes s reproducible: lane q of warp w adds x^2 over rising k of those
/// with k / 16 % 4 == q and k / 64 % 8 == w, by fused multiply-adds from 0; then (q0 + q1) + (q2 + q3) within a warp;
/// then warp 0 + warp 1 + ... + warp 7, from the left. Longest chain:
/// 16 ceil(k / 512) + 9 roundings.
///
/// Expected time: 3.125 bytes an element (2 read, 1.125 written) at the copy bandwidth, 2.8-3.0 TB/s on an H100:
/// 13-14 us for 4096 x 3072, 52-56 us for 4096 x 12288, and 2-3 us for the start and the last row sums. The
/// arithmetic, about 40 instructions a group of 4, needs half of that: 3.1 M groups x 40 / (32 lanes x 528 schedulers)
/// = 7.4 k issue slots, 4.4 us at 1.7 GHz, for 4096 x 3072.
namespace rtlynx::sm90a {

inline constexpr int kPruneRows = 16;   ///< rows of a CTA
inline constexpr int kPruneWarps = 8;   ///< fixed: it is part of the order of the sums
inline constexpr int kPruneUnroll = 2;  ///< blocks in flight per warp: 4 KiB, 32 KiB per CTA
/// CTAs on one multiprocessor (80 registers a thread): 396 on an H100, so that up to 6336 rows are one wave.
inline constexpr int kPruneCtasPerSm = 3;

struct PruneCompressPlan {
  int64_t m = 0;
  int64_t k_blocks = 0;
  int64_t row_blocks = 0;  ///< blocks of 64 rows
  int64_t ctas = 0;
};

/// Checks everything that prune_compress documents, then plans.
Result<PruneCompressPlan> plan_prune_compress(const MatrixView& x, const MutableCompressedView& out);

/// The same for prune_compress_slice: k_blocks are x's own.
Result<PruneCompressPlan> plan_prune_compress_slice(const MatrixView& x, const CompressedSlice& out);

/// Checks sizes and blocks of compressed activations; messages begin with `what`.
Status check_compressed(const std::string& what, const CompressedView& view);

/// Checks a slice of `width` k for m tokens, and that blocks and squares are apart.
Status check_slice(const std::string& what, const CompressedSlice& out, int64_t m, int64_t width);

/// Bytes of the sums of squares of a matrix [m, k].
int64_t squares_bytes(int64_t m, int64_t k);

/// Checks what finish_scale documents.
Status check_finish_scale(const MutableCompressedView& matrix, const float* squares);

}  // namespace rtlynx::sm90a
