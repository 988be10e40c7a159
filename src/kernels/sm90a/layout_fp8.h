#pragma once

#include <cstdint>

#include "kernels/sm90a/layout.h"

/// Compressed activations in FP8: a block covers 64 rows and 128 k, two wgmma.mma_async.sp m64nNk64 steps of e4m3, and
/// is contiguous: 4096 bytes of kept values, then 1024 of metadata. In bytes the values are what layout.h has for 64 k
/// of bf16, since twice the k of half the size are kept: row r holds 64 kept values at 64 r, and chunk q (the 16 kept
/// values of k = 32 q .. 32 q + 31) lies at value_offset(r, q).
///
/// Metadata: unlike with bf16, all four lanes of a quad speak in every step and each lane's word is of one row: lane l
/// of warp w describes row 16 w + l / 4 + 8 (l % 2) and k = 32 (l / 2 % 2) .. + 31 of the step, 4 bits per group as in
/// layout.h. It reads its words of both steps, k = 0..63 and 64..127, by one load of 8 bytes. A row's four words lie
/// side by side, 16 bytes, so that whoever compresses a row writes them together; rows are ordered such that each half
/// of a warp reads one line of 128 bytes.
namespace rtlynx::sm90a {

inline constexpr int kFp8BlockK = 128;
inline constexpr int kFp8MetadataBytes = kBlockRows * kFp8BlockK / 8;
inline constexpr int kFp8BlockBytes = kValueBytes + kFp8MetadataBytes;
static_assert(kBlockRows * kFp8BlockK / 2 == kValueBytes);

/// Where in a block the 16 bytes of metadata of `row` (0..63) lie.
RTLYNX_HOST_DEVICE constexpr int fp8_metadata_of_row(int row) {
  return kValueBytes + 256 * (row / 16) + 16 * (row % 4 + 4 * (row / 8 % 2) + 8 * (row / 4 % 2));
}

/// Where in a block the 4 bytes of metadata of `row` (0..63) and k = 32 * quarter .. + 31 lie.
RTLYNX_HOST_DEVICE constexpr int fp8_metadata_offset(int row, int quarter) {
  return fp8_metadata_of_row(row) + 8 * (quarter % 2) + 4 * (quarter / 2);
}

/// Where in a block the 8 bytes that a lane (0..127) of a warpgroup reads lie.
RTLYNX_HOST_DEVICE constexpr int fp8_metadata_of_lane(int lane) {
  return fp8_metadata_of_row(16 * (lane / 32) + lane % 32 / 4 + 8 * (lane % 2)) + 8 * (lane / 2 % 2);
}

/// Where the block of rows 64 * row_block .. and k = 128 * k_block .. begins.
RTLYNX_HOST_DEVICE constexpr int64_t fp8_block_offset(int64_t row_block, int64_t k_block, int64_t k_blocks) {
  return (row_block * k_blocks + k_block) * kFp8BlockBytes;
}

}  // namespace rtlynx::sm90a
