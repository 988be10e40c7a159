#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/sm90a/ptx/copy.cuh"
#include "kernels/sm90a/spmm_config.h"

/// What happens to a warpgroup's sums after the product. `row` is always the first of the warp's 16 rows; wgmma.cuh
/// says which element of the 16 rows an accumulator is. Products and sums are spelled out as separate roundings, so
/// that no compiler option fuses them and tests can predict every bit.
namespace rtlynx::sm90a {

/// sums *= the scale of their row. Rows beyond m are not stored and keep their sums.
template <int kCount>
__device__ __forceinline__ void scale_rows(float (&sums)[kCount], const float* scale, int row, int m) {
  const int low = row + static_cast<int>(threadIdx.x % 32) / 4, high = low + 8;
  const float scale_low = low < m ? __ldg(scale + low) : 1.0f;
  const float scale_high = high < m ? __ldg(scale + high) : 1.0f;
  RTLYNX_UNROLL
  for (int i = 0; i < kCount; i += 4) {
    sums[i] = __fmul_rn(sums[i], scale_low);
    sums[i + 1] = __fmul_rn(sums[i + 1], scale_low);
    sums[i + 2] = __fmul_rn(sums[i + 2], scale_high);
    sums[i + 3] = __fmul_rn(sums[i + 3], scale_high);
  }
}

/// Two neighbouring columns' bias; 0 without one or beyond n.
__device__ __forceinline__ float2 load_bias(const uint16_t* bias, int column, int n) {
  if (bias == nullptr || column >= n) return make_float2(0.0f, 0.0f);
  const uint32_t pair = __ldg(reinterpret_cast<const uint32_t*>(bias + column));
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

__device__ __forceinline__ uint32_t to_bf16_pair(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// Adds the bias, rounds to bf16 and writes the warp's 16 rows, 64 columns at a time: through 2 KiB of the warp's own
/// shared memory, laid out with the 128-byte swizzle of the output's tensor map, so that the copy engine stores whole
/// lines and leaves out what lies beyond m and n. Warps do not wait for each other.
template <int kCount>
__device__ __forceinline__ void store_sums(const float (&sums)[kCount], const CUtensorMap& output, const uint16_t* bias,
                                           int row, int column, int m, int n, uint32_t staging) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const uint32_t staged_row = staging + (lane % 16) * 128;
  RTLYNX_UNROLL
  for (int chunk = 0; chunk < 2 * kCount / kStoreColumns; ++chunk) {
    const int first_column = column + chunk * kStoreColumns;
    if (row >= m || first_column >= n) break;
    if (lane == 0) ptx::store_wait_read();
    __syncwarp();
    RTLYNX_UNROLL
    for (int j = 0; j < kStoreColumns / 8; j += 2) {
      uint32_t words[4];
      RTLYNX_UNROLL
      for (int i = 0; i < 2; ++i) {
        const float* sum = sums + 4 * (chunk * (kStoreColumns / 8) + j + i);
        const float2 add = load_bias(bias, first_column + 8 * (j + i) + 2 * (lane % 4), n);
        words[2 * i] = to_bf16_pair(__fadd_rn(sum[0], add.x), __fadd_rn(sum[1], add.y));
        words[2 * i + 1] = to_bf16_pair(__fadd_rn(sum[2], add.x), __fadd_rn(sum[3], add.y));
      }
      ptx::store_matrices(staged_row + (((j + lane / 16) ^ (lane & 7)) << 4), words);
    }
    ptx::fence_shared_for_copies();
    __syncwarp();
    if (lane == 0) {
      ptx::tensor_store(&output, first_column, row, staging);
      ptx::store_commit();
    }
  }
}

}  // namespace rtlynx::sm90a
