#pragma once

#include <cstdint>

#include "kernels/sm90a/select24.h"

/// A lane's part of compressing: 16 consecutive k of one row, and the sums of its squares.
namespace rtlynx::sm90a {

/// Sums of squares of one row: all elements, and the kept ones.
struct SquareSums {
  float all = 0.0f;
  float kept = 0.0f;
};

__device__ __forceinline__ float low_bf16(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float high_bf16(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

__device__ __forceinline__ float add_squares(uint32_t pair, float sum) {
  sum = __fmaf_rn(low_bf16(pair), low_bf16(pair), sum);
  return __fmaf_rn(high_bf16(pair), high_bf16(pair), sum);
}

/// Packs 16 elements, stores their values, adds to the row's sums and returns the 16 bits of metadata.
__device__ __forceinline__ uint32_t compress_quarter(const uint32_t (&words)[8], uint8_t* values, SquareSums& sums) {
  const PackedQuarter packed = pack_quarter(words);
  RTLYNX_UNROLL
  for (int i = 0; i < 8; ++i) sums.all = add_squares(words[i], sums.all);
  RTLYNX_UNROLL
  for (int i = 0; i < 4; ++i) sums.kept = add_squares(packed.values[i], sums.kept);
  *reinterpret_cast<uint4*>(values) =
      make_uint4(packed.values[0], packed.values[1], packed.values[2], packed.values[3]);
  return packed.metadata;
}

/// (q0 + q1) + (q2 + q3) of the four lanes that share a row.
__device__ __forceinline__ float add_quad(float value) {
  value = __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

__device__ __forceinline__ float scale_of(float all, float kept) {
  return __fsqrt_rn(__fdiv_rn(all, __fadd_rn(kept, 1e-8f)));
}

}  // namespace rtlynx::sm90a
