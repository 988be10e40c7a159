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
/// The tensor cores stand still meanwhile, so nothing here waits for global memory: a load takes some thousand cycles
/// under the main loop's traffic. Scales were loaded into registers when the tile began, bias and gate copied to shared
/// memory during the main loop.
///
/// 64 columns at a time (a chunk) pass through the warp's own shared memory, laid out with the 128-byte swizzle of the
/// tensor maps, so that the copy engine moves whole lines and leaves out what lies beyond m and n. Warps do not wait
/// for each other.
namespace rtlynx::sm90a {

inline constexpr int kEights = kStoreColumns / 8;  ///< of columns in a chunk

/// The scales of a lane's rows; 1 for rows beyond m, which are not stored.
struct RowScales {
  float low = 1.0f;   ///< of row l / 4
  float high = 1.0f;  ///< of row l / 4 + 8
};

/// Where the tile begins: what is loaded here is used a whole main loop later.
__device__ __forceinline__ RowScales load_scales(const float* scale, int row, int m) {
  RowScales scales;
  const int low = row + static_cast<int>(threadIdx.x % 32) / 4, high = low + 8;
  if (low < m) scales.low = ptx::load_early(scale + low);
  if (high < m) scales.high = ptx::load_early(scale + high);
  return scales;
}

template <int kCount>
__device__ __forceinline__ void scale_rows(float (&sums)[kCount], const RowScales& scales) {
  RTLYNX_UNROLL
  for (int i = 0; i < kCount; i += 4) {
    sums[i] = __fmul_rn(sums[i], scales.low);
    sums[i + 1] = __fmul_rn(sums[i + 1], scales.low);
    sums[i + 2] = __fmul_rn(sums[i + 2], scales.high);
    sums[i + 3] = __fmul_rn(sums[i + 3], scales.high);
  }
}

__device__ __forceinline__ uint32_t to_bf16_pair(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// `words` holds pairs of bf16 x, then of x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3): GELU's tanh form by
/// its sigmoid. The exponent is at most 126 for |x| < 10 and good to four roundings, so the result to 2^-15; more often
/// to 2^-20. tanh.approx would be one instruction, but its error of 2^-11 stands against 1 + tanh, which vanishes for
/// negative x. Step by step over all words, and volatile to stay so: one after the other each would wait for two
/// results of the special function unit, some 20 cycles each.
template <int kCount>
__device__ __forceinline__ void gelu_pairs(uint32_t (&words)[kCount]) {
  constexpr float kLinear = -2.302208198f, kCubic = -0.1029432397f;  // -2 log2(e) sqrt(2 / pi) {1, 0.044715}
  float power[2 * kCount];
  RTLYNX_UNROLL
  for (int i = 0; i < 2 * kCount; ++i) {
    const float x = i % 2 == 0 ? low_bf16(words[i / 2]) : high_bf16(words[i / 2]);
    const float exponent = __fmul_rn(x, __fmaf_rn(__fmul_rn(x, x), kCubic, kLinear));
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(power[i]) : "f"(exponent));
  }
  RTLYNX_UNROLL
  for (int i = 0; i < 2 * kCount; ++i) {
    asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(power[i]) : "f"(__fadd_rn(power[i], 1.0f)));
  }
  RTLYNX_UNROLL
  for (int i = 0; i < kCount; ++i) {
    words[i] =
        to_bf16_pair(__fmul_rn(low_bf16(words[i]), power[2 * i]), __fmul_rn(high_bf16(words[i]), power[2 * i + 1]));
  }
}

/// 32 columns of a row vector, from `vector` in shared memory: word j holds columns 8 j + 2 (l % 4) and the next, as
/// the lane's sums do. ldmatrix whose eight row addresses are the same gives every row the same 8 columns.
using VectorWords = uint32_t[4];
__device__ __forceinline__ void load_vector(uint32_t vector, VectorWords& words) {
  ptx::load_matrices(vector + threadIdx.x % 32 / 8 * 16, words);
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

/// sums + bias of one chunk in bf16, or GELU of that, to the staging. `bias` is that of the chunk.
template <bool kGelu>
__device__ __forceinline__ void stage_chunk(const float* sums, uint32_t bias, uint32_t staged) {
  VectorWords add;
  RTLYNX_UNROLL
  for (int j = 0; j < kEights; j += 2) {
    if (j % 4 == 0) load_vector(bias + 16 * j, add);
    uint32_t words[4];
    RTLYNX_UNROLL
    for (int p = 0; p < 4; ++p) {
      const uint32_t pair = add[j % 4 + p / 2];
      const float* of_pair = sums + 4 * j + 2 * p;
      words[p] = to_bf16_pair(__fadd_rn(of_pair[0], low_bf16(pair)), __fadd_rn(of_pair[1], high_bf16(pair)));
    }
    if constexpr (kGelu) gelu_pairs(words);
    ptx::store_matrices(matrices_address(staged, j), words);
  }
}

/// D = sums + bias, or GELU of that rounded to bf16; through one chunk of staging.
template <bool kGelu, int kCount>
__device__ __forceinline__ void store_sums(const float (&sums)[kCount], const CUtensorMap& output, uint32_t bias,
                                           int row, int column, int m, int n, uint32_t staging) {
  RTLYNX_UNROLL
  for (int chunk = 0; chunk < 2 * kCount / kStoreColumns; ++chunk) {
    const int first_column = column + chunk * kStoreColumns;
    if (row >= m || first_column >= n) break;
    if (threadIdx.x % 32 == 0) ptx::store_wait_read();
    __syncwarp();
    stage_chunk<kGelu>(sums + 4 * kEights * chunk, bias + chunk * kStoreColumns * 2, staging);
    store_chunk(output, first_column, row, staging);
  }
}

/// Leaves sums + bias in bf16 in the staging, for the compressing warps.
template <int kCount>
__device__ __forceinline__ void stage_sums(const float (&sums)[kCount], uint32_t bias, int column, int n,
                                           uint32_t staging) {
  RTLYNX_UNROLL
  for (int chunk = 0; chunk < 2 * kCount / kStoreColumns; ++chunk) {
    if (column + chunk * kStoreColumns >= n) break;
    stage_chunk<false>(sums + 4 * kEights * chunk, bias + chunk * kStoreColumns * 2,
                       staging + chunk * kStagedChunkBytes);
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
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    ptx::tensor_load(staging + chunk * kStagedChunkBytes, &residual, column + chunk * kStoreColumns, row, barrier);
  }
}

/// The image that `row` belongs to; beyond m the last one.
__device__ __forceinline__ int image_of_row(const SpmmArguments& args, int row) {
  return (row < args.m ? row : args.m - 1) / args.tokens_per_image;
}

/// The gate of two neighbouring columns from global memory; 0 beyond n.
__device__ __forceinline__ uint32_t load_gate(const SpmmArguments& args, int image, int column) {
  return column < args.n ? ptx::load_streamed(args.gate + image * args.gate_stride + column) : 0;
}

/// D = residual + gate * (sums + bias), one fused multiply-add; the residual lies in the staging, D takes its place.
/// `bias` and `gate` are shared memory. Where the warp's rows belong to several images (kOneImage false) the gates come
/// from global memory instead, slowly.
template <bool kOneImage, int kCount>
__device__ __forceinline__ void store_gated(const float (&sums)[kCount], const CUtensorMap& output,
                                            const SpmmArguments& args, uint32_t bias, uint32_t gate, int row,
                                            int column, uint32_t staging) {
  int image[2] = {};
  if constexpr (!kOneImage) {
    const int row_of_lane = row + static_cast<int>(threadIdx.x % 32) / 4;
    image[0] = image_of_row(args, row_of_lane);
    image[1] = image_of_row(args, row_of_lane + 8);
  }
  VectorWords add, shared;
  RTLYNX_UNROLL
  for (int eight = 0; eight < kCount / 4; eight += 2) {
    const int chunk = eight / kEights, first_column = column + 8 * eight;
    const uint32_t staged = matrices_address(staging + chunk * kStagedChunkBytes, eight % kEights);
    if (row >= args.m || column + chunk * kStoreColumns >= args.n) break;
    uint32_t words[4];
    ptx::load_matrices(staged, words);
    if (eight % 4 == 0) load_vector(bias + 16 * eight, add);
    if (kOneImage && eight % 4 == 0) load_vector(gate + 16 * eight, shared);
    RTLYNX_UNROLL
    for (int p = 0; p < 4; ++p) {
      const int of_lane = first_column + p / 2 * 8 + 2 * static_cast<int>(threadIdx.x % 4), i = eight % 4 + p / 2;
      const uint32_t b = add[i], g = kOneImage ? shared[i] : load_gate(args, image[p % 2], of_lane);
      const float* of_pair = sums + 4 * eight + 2 * p;
      const float first = __fadd_rn(of_pair[0], low_bf16(b)), second = __fadd_rn(of_pair[1], high_bf16(b));
      words[p] = to_bf16_pair(__fmaf_rn(low_bf16(g), first, low_bf16(words[p])),
                              __fmaf_rn(high_bf16(g), second, high_bf16(words[p])));
    }
    ptx::store_matrices(staged, words);
    if (eight % kEights == kEights - 2) {
      store_chunk(output, column + chunk * kStoreColumns, row, staging + chunk * kStagedChunkBytes);
    }
  }
}

}  // namespace rtlynx::sm90a
