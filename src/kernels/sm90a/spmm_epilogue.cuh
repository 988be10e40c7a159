#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/ptx/copy.cuh"
#include "kernels/sm90a/ptx/mbarrier.cuh"
#include "kernels/sm90a/spmm_arguments.h"

/// What happens to a warpgroup's sums after the product. `row` is always the first of the warp's 16 rows; wgmma.cuh
/// says which element of the 16 rows an accumulator is. Products and sums are spelled out as separate roundings, so
/// that no compiler option fuses them and tests can predict every bit.
///
/// 64 columns at a time (a chunk) pass through the warp's own shared memory, laid out with the 128-byte swizzle of the
/// tensor maps, so that the copy engine moves whole lines and leaves out what lies beyond m and n. Warps do not wait
/// for each other.
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

/// Two neighbouring columns of a row vector; 0 without one or beyond n.
__device__ __forceinline__ float2 load_pair(const uint16_t* vector, int column, int n) {
  if (vector == nullptr || column >= n) return make_float2(0.0f, 0.0f);
  const uint32_t pair = __ldg(reinterpret_cast<const uint32_t*>(vector + column));
  return make_float2(low_bf16(pair), high_bf16(pair));
}

__device__ __forceinline__ uint32_t to_bf16_pair(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3): GELU's tanh form by its sigmoid. The exponent is at
/// most 126 for |x| < 10 and good to four roundings, so the result to 2^-15; more often to 2^-20. tanh.approx would be
/// one instruction, but its error of 2^-11 stands against 1 + tanh, which vanishes for negative x.
__device__ __forceinline__ float gelu_tanh(float x) {
  constexpr float kLinear = -2.302208198f, kCubic = -0.1029432397f;  // -2 log2(e) sqrt(2 / pi) {1, 0.044715}
  const float exponent = __fmul_rn(x, __fmaf_rn(__fmul_rn(x, x), kCubic, kLinear));
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(__fadd_rn(power, 1.0f)));
  return __fmul_rn(x, inverse);
}

__device__ __forceinline__ uint32_t gelu_pair(uint32_t pair) {
  return to_bf16_pair(gelu_tanh(low_bf16(pair)), gelu_tanh(high_bf16(pair)));
}

/// sums + bias of 16 columns: pair 2 i + h holds two columns of the i-th eight, of row l / 4 + 8 h, just as stmatrix
/// takes them.
struct SixteenColumns {
  float2 pair[4];
};
__device__ __forceinline__ SixteenColumns add_bias(const float* sums, const uint16_t* bias, int column, int n) {
  SixteenColumns y;
  RTLYNX_UNROLL
  for (int i = 0; i < 2; ++i) {
    const float2 add = load_pair(bias, column + 8 * i + 2 * static_cast<int>(threadIdx.x % 4), n);
    y.pair[2 * i] = make_float2(__fadd_rn(sums[4 * i], add.x), __fadd_rn(sums[4 * i + 1], add.y));
    y.pair[2 * i + 1] = make_float2(__fadd_rn(sums[4 * i + 2], add.x), __fadd_rn(sums[4 * i + 3], add.y));
  }
  return y;
}

/// The lane's address for stmatrix and ldmatrix of the eights j and j + 1 of a chunk.
__device__ __forceinline__ uint32_t matrices_address(uint32_t chunk, int j) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return chunk + staged_offset(lane % 16, j + lane / 16);
}

__device__ __forceinline__ void store_chunk(const CUtensorMap& output, int column, int row, uint32_t chunk) {
  ptx::fence_shared_for_copies();
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    ptx::tensor_store(&output, column, row, chunk);
    ptx::store_commit();
  }
}

/// D = sums + bias, or GELU of that rounded to bf16; through one chunk of staging.
template <bool kGelu, int kCount>
__device__ __forceinline__ void store_sums(const float (&sums)[kCount], const CUtensorMap& output, const uint16_t* bias,
                                           int row, int column, int m, int n, uint32_t staging) {
  RTLYNX_UNROLL
  for (int chunk = 0; chunk < 2 * kCount / kStoreColumns; ++chunk) {
    const int first_column = column + chunk * kStoreColumns;
    if (row >= m || first_column >= n) break;
    if (threadIdx.x % 32 == 0) ptx::store_wait_read();
    __syncwarp();
    RTLYNX_UNROLL
    for (int j = 0; j < kStoreColumns / 8; j += 2) {
      const SixteenColumns y = add_bias(sums + 4 * (chunk * (kStoreColumns / 8) + j), bias, first_column + 8 * j, n);
      uint32_t words[4];
      RTLYNX_UNROLL
      for (int p = 0; p < 4; ++p) {
        words[p] = to_bf16_pair(y.pair[p].x, y.pair[p].y);
        if constexpr (kGelu) words[p] = gelu_pair(words[p]);
      }
      ptx::store_matrices(matrices_address(staging, j), words);
    }
    store_chunk(output, first_column, row, staging);
  }
}

/// Has the residual of the warp's 16 rows copied into its staging, chunk by chunk, once earlier stores have left it.
/// One phase of the barrier for every tile, with rows or without.
template <int kColumns>
__device__ __forceinline__ void fetch_residual(const CUtensorMap& residual, int row, int column, int m, int n,
                                               uint32_t staging, uint32_t barrier) {
  if (threadIdx.x % 32 != 0) return;
  if (row >= m) {
    ptx::mbarrier_arrive(barrier);
    return;
  }
  const int columns = n - column < kColumns ? n - column : kColumns;
  const int chunks = (columns + kStoreColumns - 1) / kStoreColumns;
  ptx::store_wait_read();
  ptx::mbarrier_arrive_expect_bytes(barrier, chunks * kStagedChunkBytes);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    ptx::tensor_load(staging + chunk * kStagedChunkBytes, &residual, column + chunk * kStoreColumns, row, barrier);
  }
}

/// D = residual + gate * (sums + bias), one fused multiply-add; the residual lies in the staging, D takes its place.
template <int kCount>
__device__ __forceinline__ void store_gated(const float (&sums)[kCount], const CUtensorMap& output,
                                            const SpmmArguments& args, int row, int column, uint32_t staging) {
  const uint16_t* gate[2];
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int of_lane = row + static_cast<int>(threadIdx.x % 32) / 4 + 8 * half;
    const int inside = of_lane < args.m ? of_lane : args.m - 1;
    gate[half] = args.gate + inside / args.tokens_per_image * args.gate_stride;
  }
  RTLYNX_UNROLL
  for (int chunk = 0; chunk < 2 * kCount / kStoreColumns; ++chunk) {
    const int first_column = column + chunk * kStoreColumns;
    const uint32_t staged = staging + chunk * kStagedChunkBytes;
    if (row >= args.m || first_column >= args.n) break;
    RTLYNX_UNROLL
    for (int j = 0; j < kStoreColumns / 8; j += 2) {
      const int of_lane = first_column + 8 * j + 2 * static_cast<int>(threadIdx.x % 4);
      const SixteenColumns y =
          add_bias(sums + 4 * (chunk * (kStoreColumns / 8) + j), args.bias, first_column + 8 * j, args.n);
      uint32_t words[4];
      ptx::load_matrices(matrices_address(staged, j), words);
      RTLYNX_UNROLL
      for (int p = 0; p < 4; ++p) {
        const float2 g = load_pair(gate[p % 2], of_lane + p / 2 * 8, args.n);
        words[p] = to_bf16_pair(__fmaf_rn(g.x, y.pair[p].x, low_bf16(words[p])),
                                __fmaf_rn(g.y, y.pair[p].y, high_bf16(words[p])));
      }
      ptx::store_matrices(matrices_address(staged, j), words);
    }
    store_chunk(output, first_column, row, staged);
  }
}

/// Leaves sums + bias in bf16 in the staging, for the compressing warps.
template <int kCount>
__device__ __forceinline__ void stage_sums(const float (&sums)[kCount], const uint16_t* bias, int column, int n,
                                           uint32_t staging) {
  RTLYNX_UNROLL
  for (int chunk = 0; chunk < 2 * kCount / kStoreColumns; ++chunk) {
    const int first_column = column + chunk * kStoreColumns;
    if (first_column >= n) break;
    RTLYNX_UNROLL
    for (int j = 0; j < kStoreColumns / 8; j += 2) {
      const SixteenColumns y = add_bias(sums + 4 * (chunk * (kStoreColumns / 8) + j), bias, first_column + 8 * j, n);
      uint32_t words[4];
      RTLYNX_UNROLL
      for (int p = 0; p < 4; ++p) words[p] = to_bf16_pair(y.pair[p].x, y.pair[p].y);
      ptx::store_matrices(matrices_address(staging + chunk * kStagedChunkBytes, j), words);
    }
  }
}

}  // namespace rtlynx::sm90a
