#pragma once

#include <cstdint>

#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/prune_compress_config.h"
#include "kernels/sm90a/select24.h"

/// Device code of prune_compress; prune_compress_config.h says who owns what and in which order sums are taken.
namespace rtlynx::sm90a {

struct PruneCompressArguments {
  const uint16_t* x;
  int64_t row_stride;
  uint8_t* blocks;
  float* scale;
  int m;
  int k_blocks;
};

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

/// 16 elements of one row in registers; zeros for a row beyond m.
struct Quarter {
  uint4 first;
  uint4 second;
};

__device__ __forceinline__ Quarter load_quarter(const uint16_t* x, bool inside) {
  Quarter quarter{};
  if (inside) {
    // Both halves lie in one 32-byte sector of a line that the quad's other lanes read too; L1 joins the requests.
    quarter.first = __ldg(reinterpret_cast<const uint4*>(x));
    quarter.second = __ldg(reinterpret_cast<const uint4*>(x) + 1);
  }
  return quarter;
}

/// Packs one row's quarter, stores its values, adds to the row's sums and returns the 16 bits of metadata.
__device__ __forceinline__ uint32_t compress_quarter(const Quarter& x, uint8_t* values, SquareSums& sums) {
  const uint32_t words[8] = {x.first.x,  x.first.y,  x.first.z,  x.first.w,
                             x.second.x, x.second.y, x.second.z, x.second.w};
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

/// Thread t < 16 adds its row's sums over the warps and writes the scale.
__device__ __forceinline__ void write_scales(const SquareSums (&sums)[2], const PruneCompressArguments& args,
                                             int first_row) {
  __shared__ float partial[kPruneWarps][kPruneRows][2];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float all = add_quad(sums[half].all), kept = add_quad(sums[half].kept);
    if (lane % 4 == 0) {
      partial[warp][lane / 4 + 8 * half][0] = all;
      partial[warp][lane / 4 + 8 * half][1] = kept;
    }
  }
  __syncthreads();
  const int row = first_row + static_cast<int>(threadIdx.x);
  if (threadIdx.x >= kPruneRows || row >= args.m) return;
  float all = partial[0][threadIdx.x][0], kept = partial[0][threadIdx.x][1];
  RTLYNX_UNROLL
  for (int w = 1; w < kPruneWarps; ++w) {
    all = __fadd_rn(all, partial[w][threadIdx.x][0]);
    kept = __fadd_rn(kept, partial[w][threadIdx.x][1]);
  }
  args.scale[row] = __fsqrt_rn(__fdiv_rn(all, __fadd_rn(kept, 1e-8f)));
}

__global__ void __launch_bounds__(32 * kPruneWarps, kPruneCtasPerSm)
    prune_compress_kernel(const PruneCompressArguments args) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quarter = lane % 4;
  const int first_row = static_cast<int>(blockIdx.x) * kPruneRows;
  const int row = first_row + lane / 4, row_in_block = row % kBlockRows;
  const bool inside[2] = {row < args.m, row + 8 < args.m};
  const uint16_t* x = args.x + row * args.row_stride + 16 * quarter;
  uint8_t* blocks = args.blocks + block_offset(first_row / kBlockRows, 0, args.k_blocks);
  SquareSums sums[2];

  for (int k_block = warp; k_block < args.k_blocks; k_block += kPruneUnroll * kPruneWarps) {
    Quarter loaded[kPruneUnroll][2];
    RTLYNX_UNROLL
    for (int u = 0; u < kPruneUnroll; ++u) {
      const int kb = k_block + u * kPruneWarps;
      RTLYNX_UNROLL
      for (int half = 0; half < 2; ++half) {
        loaded[u][half] =
            load_quarter(x + kb * kBlockK + 8 * half * args.row_stride, inside[half] && kb < args.k_blocks);
      }
    }
    RTLYNX_UNROLL
    for (int u = 0; u < kPruneUnroll; ++u) {
      const int kb = k_block + u * kPruneWarps;
      if (kb >= args.k_blocks) break;
      uint8_t* block = blocks + block_offset(0, kb, args.k_blocks);
      const uint32_t low = compress_quarter(loaded[u][0], block + value_offset(row_in_block, quarter), sums[0]);
      const uint32_t high = compress_quarter(loaded[u][1], block + value_offset(row_in_block + 8, quarter), sums[1]);
      *reinterpret_cast<uint32_t*>(block + metadata_offset(row_in_block, quarter)) = low | (high << 16);
    }
  }
  write_scales(sums, args, first_row);
}

}  // namespace rtlynx::sm90a
