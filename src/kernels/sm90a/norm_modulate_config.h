#pragma once

#include <cstdint>

#include "kernels/sm90a/layout.h"
#include "rtlynx/sm90a.h"

/// Host arithmetic of norm_modulate_prune_compress.
///
/// Work: persistent clusters of 4 or 8 CTAs, one CTA a multiprocessor. A cluster takes tiles of 16 whole rows; each CTA
/// has a range of their k, and that range of L_A in shared memory for good, so that L_A is read once a cluster.
/// A producer thread brings tiles ahead; four groups of four warps take a tile each, so that one group's statistics and
/// waiting hide behind the others' arithmetic, and all of it behind the copies. (One tile per CTA with all CTAs
/// resident at once took 25 us for 4096 x 3072 where copying takes 12: everybody loads, then everybody computes.)
/// Statistics, sums of squares and T go between CTAs by stores that count at the receiver's barrier.
///
/// Lanes hold 16 k of two rows, 8 apart, as in prune_compress. Where all rows share one image's modulation, its factors
/// wait in shared memory in fp32. For T the outputs go back into x's place, and each warp of the group makes a quarter
/// of L_A^T y^T by mma.m16n8k16, with L_A as the operand of 16 rows.
///
/// Arithmetic, all in fp32, each operation rounded. CTA c of C has blocks of 64 k floor(c n / C) .. floor((c + 1) n /
/// C)
/// - 1 of n; warp w takes those whose number within the range is w modulo 4.
///   sums over a row   lane q adds over rising k those with k / 16 % 4 == q, squares by fused multiply-adds; then
///                     (q0 + q1) + (q2 + q3); warps 0..3, then CTAs, from the left
///   mean = sum x (1 / k) (0 for RMSNorm); variance = fma(-mean, mean, sum x^2 (1 / k)), at least 0: with bf16 inputs
///   the
///                     cancellation costs less than their own resolution does, unless |mean| > 500 deviations
///   inverse = 1 / sqrt(variance + eps); normal = fma(x, inverse, -(mean inverse))
///   y = fma(normal, (1 + scale) weight, shift), rounded to bf16; 0 for an absent scale or shift, 1 for a weight
/// The scale's sums of squares are added in the same order as those over x; T's are chains over rising k within a CTA,
/// CTAs from the left.
///
/// Predicted at 4096 x 3072: 3.125 bytes an element are 13-14 us; about 75 instructions a group of 4, 9 us beside the
/// copies; the first tile and the last exchange 2 us: 15-17 us, and 1 us more with T. Measured: 22 and 32 us; the code
/// has more instructions than that, 12 us of issue slots (docs/kernels-hopper.md).
namespace rtlynx::sm90a {

inline constexpr int kNormRows = 16;  ///< of a tile
inline constexpr int kNormGroups = 4;
inline constexpr int kNormGroupWarps = 4;  ///< part of the order of the sums
inline constexpr int kNormThreads = 32 * (kNormGroups * kNormGroupWarps + 1);
inline constexpr int kNormBlockBytes = kNormRows * kBlockK * 2;
inline constexpr int kNormStatisticsSlots = 2 * kNormGroups;  ///< a group's next statistics may come while it reads
inline constexpr int kNormMaxStages = 8;                      ///< a power of two, as every number of stages
/// A tile for each group. With fewer, a group would wait for the phase after next of a stage's barrier, and a wait for
/// a phase passes while the one before it is not over: 2 stages read tiles that had not come.
inline constexpr int kNormLeastStages = kNormGroups;
/// Bytes of the factors and shifts of 16 k in shared memory: 16 more than they are, so that a quad's lanes hit
/// different banks.
inline constexpr int kNormModulationPitch = 16 * 8 + 16;
inline constexpr int kMaxNormCluster = 8;
inline constexpr int kNormMaxK = 12288;

/// The first block of 64 k of CTA `cta`.
RTLYNX_HOST_DEVICE constexpr int norm_first_block(int k_blocks, int ctas, int cta) {
  return static_cast<int>(static_cast<int64_t>(k_blocks) * cta / ctas);
}

/// Offsets in shared memory, in bytes.
struct NormMemory {
  int stages = 0;  ///< tiles of x, 1024-byte aligned for the swizzle
  int stage_bytes = 0;
  int lora_a = 0;               ///< this CTA's blocks of L_A, columns x 64 k each, swizzled too
  int t = 0;                    ///< [groups, ctas, columns, rows / ctas] fp32: parts of T from each CTA
  int modulation = 0;           ///< pairs of factor and shift of this CTA's k
  int statistics = 0;           ///< [slots, ctas, rows] pairs
  int squares = 0;              ///< [groups, ctas, rows / ctas] pairs
  int partial = 0;              ///< [groups, 2, warps, rows] pairs
  int barriers = 0;             ///< two a stage
  int statistics_barriers = 0;  ///< one a slot
  int output_barriers = 0;      ///< one a group
  int lora_barrier = 0;
  int bytes = 0;
};

/// The memory of a CTA with up to `blocks` blocks of k, `columns` of T (0: none) and `stages` tiles.
NormMemory norm_memory(int blocks, int columns, int ctas, int stages);

struct NormModulatePlan {
  int64_t m = 0;
  int64_t k = 0;
  int64_t tiles = 0;
  int64_t tokens_per_image = 0;
  int ctas = 0;  ///< of a cluster
  int stages = 0;
  int columns = 0;  ///< of T that are computed
  NormMemory memory;
};

/// Checks everything that norm_modulate_prune_compress documents, then plans.
Result<NormModulatePlan> plan_norm_modulate(const MatrixView& x, const MutableCompressedView& out,
                                            const NormModulateOptions& options);

}  // namespace rtlynx::sm90a
