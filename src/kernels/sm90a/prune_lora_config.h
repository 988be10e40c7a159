#pragma once

#include <cstdint>
#include <string>

#include "kernels/sm90a/layout.h"
#include "rtlynx/sm90a.h"

/// Host arithmetic of prune_compress_lora: prune_compress, and T = X L_A from the same registers.
///
/// Work: a cluster of four CTAs owns 64 rows. Of the eight classes k / 64 % 8, in which prune_compress sums (there one
/// warp each), CTA c has 2 c and 2 c + 1. A producer thread brings blocks of 64 x 64 of X and the same 64 k of L_A
/// through a ring in shared memory. Eight warps each prune 16 rows of every other block, lanes as in prune_compress;
/// beside them a warpgroup multiplies every block by wgmma, which reads both operands where the copies have put them.
/// (With the products in the pruning warps, by mma.m16n8k16, this took 34 us for 4096 x 3072: 32 of them and 100
/// register moves lengthen every warp's chain, and four warps a scheduler do not hide it.)
///
/// T: in fp32, a chain over rising k in each CTA; then CTA 0 + CTA 1 + CTA 2 + CTA 3 from the left, after stores into
/// the shared memory of the rows' owner, and one rounding to bf16. Row sums in prune_compress's order, so that blocks
/// and scale have the same bits.
///
/// Expected at 4096 x 3072, r = 64 on an H100: 25 MB of L_A from L2 beside 25 MB of X and 14 MB written; shared memory
/// moves 24 KB a block, 190 cycles, 2.7 us in all; about 1 us at the end for the exchange: prune_compress's 13 us +
/// 2-3. Measured: 25 us, and 134 beside prune_compress's 127 us at 8192 x 12288 (docs/kernels-hopper.md).
namespace rtlynx::sm90a {

inline constexpr int kLoraClusterSize = 4;
inline constexpr int kLoraOwnedRows = kBlockRows / kLoraClusterSize;
inline constexpr int kLoraMultiplyWarps = 4;                                          ///< one warpgroup
inline constexpr int kLoraPruneWarps = 8;                                             ///< 4 times 16 rows, 2 classes
inline constexpr int kLoraThreads = 32 * (kLoraMultiplyWarps + kLoraPruneWarps + 1);  ///< and the producer's warp
inline constexpr int kLoraClasses = 8;
inline constexpr int kLoraRingBytes = 80 * 1024;

/// Columns that the kernels compute for a rank: 32, 64 or 128.
RTLYNX_HOST_DEVICE constexpr int lora_columns(int64_t rank) {
  return rank <= 32 ? 32 : rank <= 64 ? 64 : 128;
}

/// CTAs on one multiprocessor: 72 registers a thread, too few beside 64 sums of T.
RTLYNX_HOST_DEVICE constexpr int lora_ctas_per_sm(int columns) {
  return columns == 128 ? 1 : 2;
}

RTLYNX_HOST_DEVICE constexpr int lora_stage_bytes(int columns) {
  return (kBlockRows + columns) * kBlockK * 2;
}
RTLYNX_HOST_DEVICE constexpr int lora_stages(int columns) {
  return kLoraRingBytes / lora_stage_bytes(columns);
}
/// After the ring: T of 16 rows from four CTAs, rows 8 floats further apart than they are long, so that four rows hit
/// different banks; sums of squares of 16 rows from eight classes; two barriers a stage and that of the sums.
RTLYNX_HOST_DEVICE constexpr int lora_t_pitch(int columns) {
  return columns + 8;
}
RTLYNX_HOST_DEVICE constexpr int lora_t_offset(int columns) {
  return lora_stages(columns) * lora_stage_bytes(columns);
}
RTLYNX_HOST_DEVICE constexpr int lora_squares_offset(int columns) {
  return lora_t_offset(columns) + kBlockRows * lora_t_pitch(columns) * 4;
}
RTLYNX_HOST_DEVICE constexpr int lora_barriers_offset(int columns) {
  return lora_squares_offset(columns) + kLoraClasses * kLoraOwnedRows * 8;
}
RTLYNX_HOST_DEVICE constexpr int lora_shared_bytes(int columns) {
  return lora_barriers_offset(columns) + 16 * lora_stages(columns) + 8;
}
/// What a CTA is sent at the end.
RTLYNX_HOST_DEVICE constexpr int lora_sums_bytes(int columns) {
  return kBlockRows * columns * 4 + kLoraClasses * kLoraOwnedRows * 8;
}

struct PruneLoraPlan {
  int64_t m = 0;
  int64_t k_blocks = 0;
  int64_t ctas = 0;
  int rank = 0;
  int columns = 0;
};

/// kUnsupported unless the rank is a multiple of 8 in 8..128.
Status check_lora_rank(const std::string& what, int64_t rank);

/// L_A and T beside checked `out`; messages begin with `name`.
Status check_lora_down(const std::string& name, const LoraDown& lora, const MutableCompressedView& out);

/// Checks everything that prune_compress_lora documents, then plans.
Result<PruneLoraPlan> plan_prune_compress_lora(const MatrixView& x, const MutableCompressedView& out,
                                               const LoraDown& lora);

}  // namespace rtlynx::sm90a
