#pragma once

#include <cstdint>

#include "kernels/sm90a/host_device.h"

/// Compressed activations as the Hopper kernels keep them, a format of our own.
///
/// A block covers 64 rows and 64 k, the tile of two wgmma.mma_async.sp m64nNk32 steps, and is contiguous: 4096 bytes of
/// kept values, then 512 of metadata. One plain bulk copy brings the values to shared memory ready for wgmma, one
/// coalesced load the metadata to registers; neither needs a tensor map. Blocks of the same 64 rows follow each other
/// in rising k, so that a warpgroup walks one linear stream.
///
/// Values: row r holds 32 kept bf16 = 64 bytes at 64 r, its four 16-byte chunks permuted by the 64-byte swizzle that
/// the matrix descriptor names: chunk q (the kept values of k = 16 q .. 16 q + 15) lies at chunk q ^ (r / 2 % 4).
///
/// Metadata: lane l of warp w reads one 32-bit word, at 4 (32 w + l). With r = 16 w + l / 4 and q = l % 4 it describes
/// k = 16 q .. 16 q + 15 of row r in its low half and of row r + 8 in its high half; 4 bits per group of four k in
/// rising order, the first kept index in bits 0-1 and the second, larger one in bits 2-3. wgmma's sparsity selector 0
/// takes the words of q = 0, 1 (the first k32 step), selector 1 those of q = 2, 3: one word serves two steps.
namespace rtlynx::sm90a {

inline constexpr int kBlockRows = 64;
inline constexpr int kBlockK = 64;
inline constexpr int kValueBytes = kBlockRows * kBlockK / 2 * 2;
inline constexpr int kMetadataBytes = kBlockRows * kBlockK / 8;
inline constexpr int kBlockBytes = kValueBytes + kMetadataBytes;
inline constexpr int kSquaresColumns = 128;  ///< k of one part of the sums of squares (CompressedSlice)

/// Where in a block the 16 bytes of kept values of `row` (0..63) and k = 16 * quarter .. + 15 lie.
RTLYNX_HOST_DEVICE constexpr int value_offset(int row, int quarter) {
  return row * 64 + ((quarter ^ ((row >> 1) & 3)) * 16);
}

/// Where in a block the 2 bytes of metadata of `row` (0..63) and k = 16 * quarter .. + 15 lie.
RTLYNX_HOST_DEVICE constexpr int metadata_offset(int row, int quarter) {
  const int lane = 32 * (row / 16) + 4 * (row % 8) + quarter;
  return kValueBytes + 4 * lane + 2 * (row / 8 % 2);
}

/// Where the block of rows 64 * row_block .. and k = 64 * k_block .. begins.
RTLYNX_HOST_DEVICE constexpr int64_t block_offset(int64_t row_block, int64_t k_block, int64_t k_blocks) {
  return (row_block * k_blocks + k_block) * kBlockBytes;
}

}  // namespace rtlynx::sm90a
