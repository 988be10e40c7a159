#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/norm_modulate_config.h"
#include "kernels/sm90a/ptx/copy.cuh"
#include "kernels/sm90a/ptx/mbarrier.cuh"

/// Device code of norm_modulate_prune_compress; norm_modulate_config.h says who owns what and how every number comes
/// about.
namespace rtlynx::sm90a {

/// A row vector per image; row i of X has row i / tokens_per_image.
struct PerImage {
  const uint16_t* data;  ///< null: absent
  int64_t row_stride;
};

struct NormModulateArguments {
  const uint16_t* x;
  int64_t row_stride;
  const uint16_t* weight;  ///< only read by the kernels with one
  PerImage modulation_scale;
  PerImage modulation_shift;
  int tokens_per_image;
  float eps;
  int m;
  int k;
  uint8_t* blocks;
  float* scale;
  uint16_t* dense;  ///< null: not wanted
  int64_t dense_stride;
};

struct NormStatistics {
  float inverse;
  float offset;  ///< -(mean inverse)
};

__device__ __forceinline__ float add_warp(float value) {
  RTLYNX_UNROLL
  for (int apart = 16; apart > 0; apart /= 2) value = __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, apart));
  return value;
}

/// `add` folds the 8 bf16 of each of the lane's 16-byte pieces of the row into its sum.
template <typename Add>
__device__ __forceinline__ float sum_over_row(uint32_t row, int k, const Add& add) {
  float sum = 0.0f;
#pragma unroll 2
  for (int piece = threadIdx.x % 32; piece < k / 8; piece += 32) {
    const uint4 words = ptx::load_shared(row + 16 * piece);
    sum = add(words.w, add(words.z, add(words.y, add(words.x, sum))));
  }
  return add_warp(sum);
}

template <bool kLayerNorm>
__device__ __forceinline__ NormStatistics statistics_of_row(uint32_t row, int k, float eps) {
  float mean = 0.0f;
  if constexpr (kLayerNorm) {
    const float sum = sum_over_row(
        row, k, [](uint32_t pair, float sum) { return __fadd_rn(__fadd_rn(sum, low_bf16(pair)), high_bf16(pair)); });
    mean = __fdiv_rn(sum, static_cast<float>(k));
  }
  const float squares = sum_over_row(row, k, [mean](uint32_t pair, float sum) {
    const float low = __fsub_rn(low_bf16(pair), mean), high = __fsub_rn(high_bf16(pair), mean);
    return __fmaf_rn(high, high, __fmaf_rn(low, low, sum));
  });
  const float variance = __fdiv_rn(squares, static_cast<float>(k));
  const float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(variance, eps)));
  return {inverse, -__fmul_rn(mean, inverse)};
}

/// 8 consecutive bf16 of a vector that may be absent: zeros then.
__device__ __forceinline__ uint4 load_eight(const uint16_t* vector, int at) {
  if (vector == nullptr) return make_uint4(0, 0, 0, 0);
  return __ldg(reinterpret_cast<const uint4*>(vector + at));
}

template <bool kWeight>
__device__ __forceinline__ uint32_t modulate(uint32_t x, const NormStatistics& row, uint32_t scale, uint32_t weight,
                                             uint32_t shift) {
  float low_factor = __fadd_rn(1.0f, low_bf16(scale)), high_factor = __fadd_rn(1.0f, high_bf16(scale));
  if constexpr (kWeight) {
    low_factor = __fmul_rn(low_factor, low_bf16(weight));
    high_factor = __fmul_rn(high_factor, high_bf16(weight));
  }
  const float low = __fmaf_rn(low_bf16(x), row.inverse, row.offset);
  const float high = __fmaf_rn(high_bf16(x), row.inverse, row.offset);
  const __nv_bfloat162 pair = __floats2bfloat162_rn(__fmaf_rn(low, low_factor, low_bf16(shift)),
                                                    __fmaf_rn(high, high_factor, high_bf16(shift)));
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// The lane's row of X, y, and where it goes. Pointers and addresses are at k = 16 (lane % 4).
struct NormLane {
  bool inside;
  int row_in_block;
  uint32_t shared;
  NormStatistics statistics;
  const uint16_t* weight;
  const uint16_t* scale;
  const uint16_t* shift;
  uint16_t* dense;
};

/// y of 16 consecutive k.
template <bool kWeight>
__device__ __forceinline__ void normalize_quarter(const NormLane& lane, int k, uint32_t (&y)[8]) {
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int at = k + 8 * half;
    const uint4 x = ptx::load_shared(lane.shared + 2 * at);
    const uint4 scale = load_eight(lane.scale, at), shift = load_eight(lane.shift, at);
    uint4 weight{};
    if constexpr (kWeight) weight = load_eight(lane.weight, at);
    y[4 * half] = modulate<kWeight>(x.x, lane.statistics, scale.x, weight.x, shift.x);
    y[4 * half + 1] = modulate<kWeight>(x.y, lane.statistics, scale.y, weight.y, shift.y);
    y[4 * half + 2] = modulate<kWeight>(x.z, lane.statistics, scale.z, weight.z, shift.z);
    y[4 * half + 3] = modulate<kWeight>(x.w, lane.statistics, scale.w, weight.w, shift.w);
  }
}

/// The lane's 16 k of block `k_block`: y, its dense copy, its compressed form, its squares.
template <bool kWeight>
__device__ __forceinline__ void compress_normalized(const NormLane& lane, int k_block, uint8_t* block,
                                                    SquareSums& sums) {
  const int quarter = threadIdx.x % 4;
  uint32_t y[8] = {};
  if (lane.inside) {
    normalize_quarter<kWeight>(lane, k_block * kBlockK, y);
    if (lane.dense != nullptr) {
      auto* dense = reinterpret_cast<uint4*>(lane.dense + k_block * kBlockK);
      dense[0] = make_uint4(y[0], y[1], y[2], y[3]);
      dense[1] = make_uint4(y[4], y[5], y[6], y[7]);
    }
  }
  const uint32_t metadata = compress_quarter(y, block + value_offset(lane.row_in_block, quarter), sums);
  *reinterpret_cast<uint16_t*>(block + metadata_offset(lane.row_in_block, quarter)) = static_cast<uint16_t>(metadata);
}

/// By the first 8 threads, after the sums of all warps are in `partial`.
__device__ __forceinline__ void write_scale(const float2 (&partial)[kNormWarps][kNormRows], int row, int m,
                                            float* scale) {
  if (threadIdx.x >= kNormRows || row >= m) return;
  float2 total = partial[0][threadIdx.x];
  RTLYNX_UNROLL
  for (int w = 1; w < kNormWarps; ++w) {
    total.x = __fadd_rn(total.x, partial[w][threadIdx.x].x);
    total.y = __fadd_rn(total.y, partial[w][threadIdx.x].y);
  }
  scale[row] = scale_of(total.x, total.y);
}

template <bool kLayerNorm, bool kWeight>
__global__ void __launch_bounds__(32 * kNormWarps, kNormCtasPerSm)
    norm_modulate_kernel(const __grid_constant__ NormModulateArguments args) {
  extern __shared__ uint4 rows_of_x[];
  __shared__ uint64_t barriers[kNormRows];
  __shared__ NormStatistics statistics[kNormRows];
  __shared__ float2 partial[kNormWarps][kNormRows];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, pitch = norm_row_pitch(args.k);
  const int first_row = static_cast<int>(blockIdx.x) * kNormRows;
  const uint32_t x = ptx::shared_address(rows_of_x);

  // Warp w needs nobody to have row w copied and measured.
  if (first_row + warp < args.m) {
    const uint32_t barrier = ptx::shared_address(&barriers[warp]);
    if (lane == 0) {
      const uint32_t bytes = 2 * args.k;
      ptx::mbarrier_init(barrier, 1);
      ptx::mbarrier_init_fence();
      ptx::mbarrier_arrive_expect_bytes(barrier, bytes);
      ptx::bulk_load(x + warp * pitch, args.x + (first_row + warp) * args.row_stride, bytes, barrier);
    }
    __syncwarp();
    ptx::mbarrier_wait(barrier, 0);
    const NormStatistics of_row = statistics_of_row<kLayerNorm>(x + warp * pitch, args.k, args.eps);
    if (lane == 0) statistics[warp] = of_row;
  }
  // The other warps see the copied rows too: the barrier orders what this one's wait has made visible.
  __syncthreads();

  const int row = first_row + lane / 4, column = 16 * (lane % 4);
  const bool inside = row < args.m;
  const int64_t image = (inside ? row : 0) / args.tokens_per_image;
  const auto of_image = [&](const PerImage& vector) {
    return vector.data == nullptr ? nullptr : vector.data + image * vector.row_stride + column;
  };
  const NormLane mine{inside,
                      row % kBlockRows,
                      x + lane / 4 * pitch + 2 * column,
                      inside ? statistics[lane / 4] : NormStatistics{0.0f, 0.0f},
                      kWeight ? args.weight + column : nullptr,
                      of_image(args.modulation_scale),
                      of_image(args.modulation_shift),
                      args.dense == nullptr ? nullptr : args.dense + row * args.dense_stride + column};
  const int k_blocks = args.k / kBlockK;
  uint8_t* blocks = args.blocks + block_offset(first_row / kBlockRows, 0, k_blocks);
  SquareSums sums;
  for (int k_block = warp; k_block < k_blocks; k_block += kNormWarps) {
    compress_normalized<kWeight>(mine, k_block, blocks + block_offset(0, k_block, k_blocks), sums);
  }
  const float2 total = make_float2(add_quad(sums.all), add_quad(sums.kept));
  if (lane % 4 == 0) partial[warp][lane / 4] = total;
  __syncthreads();
  write_scale(partial, first_row + static_cast<int>(threadIdx.x), args.m, args.scale);
}

}  // namespace rtlynx::sm90a
