#pragma once

#include <cstdint>

#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/ptx/copy.cuh"

/// Blocks of 64 k in shared memory as the copy engine leaves them, swizzled by 128 bytes: 16-byte chunk c of row r lies
/// at chunk c ^ (r % 8). A lane takes k = 16 (lane % 4) .. + 15 of two rows, 8 apart; a warp's accesses hit all banks
/// alike.
namespace rtlynx::sm90a {

/// Where the lane's k 8 half .. + 7 of its 16 lie in a row whose number modulo 8 is lane / 4.
__device__ __forceinline__ uint32_t swizzled_chunk(int half) {
  const uint32_t lane = threadIdx.x % 32;
  return ((2 * (lane % 4) + half) ^ (lane / 4)) * 16;
}
inline constexpr int kEightRowsBytes = 8 * 2 * kBlockK;

/// `x` is at the first of the two rows.
__device__ __forceinline__ void load_rows(uint32_t x, uint32_t (&low)[8], uint32_t (&high)[8]) {
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const uint32_t chunk = x + swizzled_chunk(half);
    const uint4 a = ptx::load_shared(chunk), b = ptx::load_shared(chunk + kEightRowsBytes);
    low[4 * half] = a.x, low[4 * half + 1] = a.y, low[4 * half + 2] = a.z, low[4 * half + 3] = a.w;
    high[4 * half] = b.x, high[4 * half + 1] = b.y, high[4 * half + 2] = b.z, high[4 * half + 3] = b.w;
  }
}

__device__ __forceinline__ void store_rows(uint32_t x, const uint32_t (&low)[8], const uint32_t (&high)[8]) {
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const uint32_t chunk = x + swizzled_chunk(half);
    const int w = 4 * half;
    ptx::store_shared(chunk, make_uint4(low[w], low[w + 1], low[w + 2], low[w + 3]));
    ptx::store_shared(chunk + kEightRowsBytes, make_uint4(high[w], high[w + 1], high[w + 2], high[w + 3]));
  }
}

}  // namespace rtlynx::sm90a
