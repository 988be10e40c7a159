#pragma once

#include <cstdint>

#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/prune_compress_config.h"

/// Device code of prune_compress; prune_compress_config.h says who owns what and in which order sums are taken.
namespace rtlynx::sm90a {

struct PruneCompressArguments {
  const uint16_t* x;
  int64_t row_stride;
  uint8_t* blocks;  ///< the block of row 0 and x's k = 0
  float* scale;     ///< null: write the sums to `squares` instead
  float2* squares;  ///< [parts of x, m]
  int m;
  int k_blocks;      ///< of x
  int out_k_blocks;  ///< of the whole output matrix
};

/// 16 elements of one row in registers; zeros for a row beyond m.
struct Quarter {
  uint4 first;
  uint4 second;
};

__device__ __forceinline__ uint32_t compress_quarter(const Quarter& x, uint8_t* values, SquareSums& sums) {
  const uint32_t words[8] = {x.first.x,  x.first.y,  x.first.z,  x.first.w,
                             x.second.x, x.second.y, x.second.z, x.second.w};
  return compress_quarter(words, values, sums);
}

__device__ __forceinline__ Quarter load_quarter(const uint16_t* x, bool inside) {
  Quarter quarter{};
  if (inside) {
    // Both halves lie in one 32-byte sector of a line that the quad's other lanes read too; L1 joins the requests.
    quarter.first = __ldg(reinterpret_cast<const uint4*>(x));
    quarter.second = __ldg(reinterpret_cast<const uint4*>(x) + 1);
  }
  return quarter;
}

/// Thread t < 16 adds its row's sums over the warps and writes the scale, or the sums as the first of x's parts.
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
  if (args.scale != nullptr) {
    args.scale[row] = scale_of(all, kept);
    return;
  }
  const int parts = (args.k_blocks * kBlockK + kSquaresColumns - 1) / kSquaresColumns;
  for (int part = 0; part < parts; ++part) {
    args.squares[static_cast<int64_t>(part) * args.m + row] = part == 0 ? make_float2(all, kept) : make_float2(0, 0);
  }
}

__global__ void __launch_bounds__(32 * kPruneWarps, kPruneCtasPerSm)
    prune_compress_kernel(const PruneCompressArguments args) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quarter = lane % 4;
  const int first_row = static_cast<int>(blockIdx.x) * kPruneRows;
  const int row = first_row + lane / 4, row_in_block = row % kBlockRows;
  const bool inside[2] = {row < args.m, row + 8 < args.m};
  const uint16_t* x = args.x + row * args.row_stride + 16 * quarter;
  uint8_t* blocks = args.blocks + block_offset(first_row / kBlockRows, 0, args.out_k_blocks);
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
      uint8_t* block = blocks + block_offset(0, kb, args.out_k_blocks);
      const uint32_t low = compress_quarter(loaded[u][0], block + value_offset(row_in_block, quarter), sums[0]);
      const uint32_t high = compress_quarter(loaded[u][1], block + value_offset(row_in_block + 8, quarter), sums[1]);
      *reinterpret_cast<uint32_t*>(block + metadata_offset(row_in_block, quarter)) = low | (high << 16);
    }
  }
  write_scales(sums, args, first_row);
}

}  // namespace rtlynx::sm90a
