#pragma once

#include <cstdint>

#include "kernels/sm90a/layout.h"
#include "rtlynx/sm90a.h"

/// Host arithmetic of norm_modulate_prune_compress.
///
/// Work: a CTA owns 8 rows, which it keeps in shared memory: X is read from global memory once, although the mean, the
/// variance and the outputs each need the whole row. Copies of whole rows are queued at once, a barrier for each; warp
/// w computes the statistics of row w as soon as that row is there. Then the 8 warps take the blocks of 64 k in turn,
/// lane l row l / 4 and k = 16 (l % 4) .. + 15, half of what a lane has in prune_compress (whose CTAs own 16 rows), so
/// that four CTAs of k = 3072 share a multiprocessor and one's arithmetic covers another's copies. Rows in shared
/// memory are 16 bytes further apart than they are long: a quarter warp's 16-byte loads then hit all banks once.
///
/// Arithmetic, all in fp32, each operation rounded:
///   sums over a row   lane l adds over rising k those with k / 8 % 32 == l; then lanes 16, 8, 4, 2, 1 apart are added
///   mean = sum x / k (0 for RMSNorm); variance = sum (x - mean)^2 / k, with fused multiply-adds
///   inverse = 1 / sqrt(variance + eps); normal = fma(x, inverse, -(mean inverse))
///   y = fma(normal, (1 + scale) weight, shift), rounded to bf16; 0 for an absent scale or shift, 1 for a weight
/// The scale's sums run as in prune_compress.
///
/// Expected time: 2 bytes read and 1.125 written an element, 13-14 us for 4096 x 3072 at an H100's 2.8-3.0 TB/s, less
/// where X still lies in L2. About 95 instructions a group of 4, of which 40 run at half rate: 18 k issue slots, 10.5
/// us at 1.7 GHz, beside the copies but not entirely: 17-18 us, what a dense LayerNorm + modulation takes for its 4
/// bytes an element. A dense output adds 2 bytes an element, 8-9 us.
namespace rtlynx::sm90a {

inline constexpr int kNormRows = 8;       ///< rows of a CTA; one warp each for the statistics
inline constexpr int kNormWarps = 8;      ///< part of the order of the sums
inline constexpr int kNormCtasPerSm = 4;  ///< 64 registers a thread
inline constexpr int kNormMaxK = 14400;   ///< 8 rows in 227 KiB

/// Bytes from one row to the next in shared memory.
RTLYNX_HOST_DEVICE constexpr int norm_row_pitch(int k) {
  return 2 * k + 16;
}
RTLYNX_HOST_DEVICE constexpr int norm_shared_bytes(int k) {
  return kNormRows * norm_row_pitch(k);
}

struct NormModulatePlan {
  int64_t m = 0;
  int64_t k = 0;
  int64_t ctas = 0;
  int64_t tokens_per_image = 0;
};

/// Checks everything that norm_modulate_prune_compress documents, then plans.
Result<NormModulatePlan> plan_norm_modulate(const MatrixView& x, const MutableCompressedView& out,
                                            const NormModulateOptions& options);

}  // namespace rtlynx::sm90a
