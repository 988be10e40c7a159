#pragma once

#include <cstdint>

#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/fp8.h"
#include "kernels/sm90a/prune_compress_fp8_config.h"

/// Device code of prune_compress_fp8; prune_compress_fp8_config.h says who owns what and in which order sums are taken.
namespace rtlynx::sm90a {

struct PruneCompressFp8Arguments {
  const uint16_t* x;
  int64_t row_stride;
  uint8_t* blocks;
  float* factor;
  int m;
  int k_blocks;
  bool norm_compensation;
};

/// What a lane, a warp or a row has seen of its row so far.
struct RowFacts {
  SquareSums sums;
  uint32_t largest = 0;  ///< magnitudes of two bf16; the larger half counts

  __device__ __forceinline__ float amax() const {
    const uint32_t low = largest & 0xffffu, high = largest >> 16;
    return __uint_as_float((low > high ? low : high) << 16);
  }
};

/// Combines the facts of a warp's lanes; all lanes get the same.
__device__ __forceinline__ void add_lanes(RowFacts& facts) {
  RTLYNX_UNROLL
  for (int distance = 1; distance < 32; distance *= 2) {
    facts.sums.all = __fadd_rn(facts.sums.all, __shfl_xor_sync(0xffffffffu, facts.sums.all, distance));
    facts.sums.kept = __fadd_rn(facts.sums.kept, __shfl_xor_sync(0xffffffffu, facts.sums.kept, distance));
    facts.largest = __vmaxu2(facts.largest, __shfl_xor_sync(0xffffffffu, facts.largest, distance));
  }
}

/// Combines the facts of the kWarps warps of each row; all threads of the CTA call it.
template <int kWarps>
__device__ __forceinline__ void add_warps(RowFacts& facts) {
  __shared__ float all[kFp8PruneWarps], kept[kFp8PruneWarps];
  __shared__ uint32_t largest[kFp8PruneWarps];
  const int warp = threadIdx.x / 32, first = warp / kWarps * kWarps;
  if (threadIdx.x % 32 == 0) {
    all[warp] = facts.sums.all;
    kept[warp] = facts.sums.kept;
    largest[warp] = facts.largest;
  }
  __syncthreads();
  facts.sums = {all[first], kept[first]};
  facts.largest = largest[first];
  RTLYNX_UNROLL
  for (int i = first + 1; i < first + kWarps; ++i) {
    facts.sums.all = __fadd_rn(facts.sums.all, all[i]);
    facts.sums.kept = __fadd_rn(facts.sums.kept, kept[i]);
    facts.largest = __vmaxu2(facts.largest, largest[i]);
  }
}

/// 16 k of a row; zeros where there is none.
struct Sixteen {
  uint32_t words[8];
};
__device__ __forceinline__ Sixteen load_sixteen(const uint16_t* x, bool inside) {
  uint4 first{}, second{};
  if (inside) {
    first = __ldg(reinterpret_cast<const uint4*>(x));
    second = __ldg(reinterpret_cast<const uint4*>(x) + 1);
  }
  return {{first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w}};
}

/// Adds a unit to the row's facts; its kept values and 16 bits of metadata.
__device__ __forceinline__ PackedQuarter select_sixteen(const Sixteen& x, RowFacts& facts) {
  const PackedQuarter packed = pack_quarter(x.words);
  RTLYNX_UNROLL
  for (int i = 0; i < 8; ++i) facts.sums.all = add_squares(x.words[i], facts.sums.all);
  RTLYNX_UNROLL
  for (int i = 0; i < 4; ++i) {
    facts.sums.kept = add_squares(packed.values[i], facts.sums.kept);
    facts.largest = __vmaxu2(facts.largest, packed.values[i] & 0x7fff7fffu);
  }
  return packed;
}

template <int kWarpsPerRow>
__global__ void __launch_bounds__(32 * kFp8PruneWarps, kFp8PruneCtasPerSm)
    prune_compress_fp8_kernel(const PruneCompressFp8Arguments args) {
  constexpr int kStride = 32 * kWarpsPerRow;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = static_cast<int>(blockIdx.x) * (kFp8PruneWarps / kWarpsPerRow) + warp / kWarpsPerRow;
  const int units = args.k_blocks * (kFp8BlockK / 16);
  const int first_unit = warp % kWarpsPerRow * 32;  // of the warp
  const bool inside = row < args.m;
  const uint16_t* x = args.x + row * args.row_stride;
  uint8_t* blocks = args.blocks + fp8_block_offset(row / kBlockRows, 0, args.k_blocks);
  const int row_in_block = row % kBlockRows;

  const auto load = [&](int j) {
    const int unit = first_unit + j * kStride + lane;
    return load_sixteen(x + 16 * unit, inside && unit < units);
  };
  // Nearly all of a row's bytes are in flight at once; then each unit's 8 words give way to 4 that are kept.
  Sixteen loaded[kFp8PruneUnits];
  RTLYNX_UNROLL
  for (int j = 0; j < kFp8PruneUnits - 1; ++j) loaded[j] = load(j);
  uint32_t kept[kFp8PruneUnits][4];
  RowFacts facts;
  RTLYNX_UNROLL
  for (int j = 0; j < kFp8PruneUnits; ++j) {
    if (first_unit + j * kStride >= units) break;  // of all lanes
    const int unit = first_unit + j * kStride + lane;
    const PackedQuarter packed = select_sixteen(loaded[j], facts);
    if (j == 0) loaded[kFp8PruneUnits - 1] = load(kFp8PruneUnits - 1);
    RTLYNX_UNROLL
    for (int g = 0; g < 4; ++g) kept[j][g] = packed.values[g];
    // Two neighbouring lanes' 16 k share a word of metadata.
    const uint32_t next = __shfl_down_sync(0xffffffffu, packed.metadata, 1);
    if (lane % 2 == 0 && unit < units) {
      *reinterpret_cast<uint32_t*>(blocks + fp8_block_offset(0, unit / 8, 0) +
                                   fp8_metadata_offset(row_in_block, unit / 2 % 4)) = packed.metadata | (next << 16);
    }
  }
  add_lanes(facts);
  if constexpr (kWarpsPerRow > 1) add_warps<kWarpsPerRow>(facts);
  const RowScale scale = row_scale(facts.amax());
  if (inside && lane == 0 && warp % kWarpsPerRow == 0) {
    args.factor[row] =
        args.norm_compensation ? __fmul_rn(scale_of(facts.sums.all, facts.sums.kept), scale.scale) : scale.scale;
  }
  RTLYNX_UNROLL
  for (int j = 0; j < kFp8PruneUnits; ++j) {
    const int unit = first_unit + j * kStride + lane;
    if (unit >= units) break;
    uint32_t pairs[4];
    RTLYNX_UNROLL
    for (int g = 0; g < 4; ++g) pairs[g] = quantize_pair(kept[j][g], scale.inverse);
    *reinterpret_cast<uint2*>(blocks + fp8_block_offset(0, unit / 8, 0) + value_offset(row_in_block, unit / 2 % 4) +
                              unit % 2 * 8) = make_uint2(pairs[0] | (pairs[1] << 16), pairs[2] | (pairs[3] << 16));
  }
}

}  // namespace rtlynx::sm90a
