#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/prune_lora_config.h"
#include "kernels/sm90a/ptx/cluster.cuh"
#include "kernels/sm90a/ptx/copy.cuh"
#include "kernels/sm90a/ptx/mbarrier.cuh"
#include "kernels/sm90a/ptx/wgmma_narrow.cuh"
#include "kernels/sm90a/swizzled_rows.cuh"

/// Device code of prune_compress_lora; prune_lora_config.h says who owns what and in which order sums are taken.
namespace rtlynx::sm90a {

/// Boxes of 64 k x 64 rows of X, and of 64 k x all computed columns of L_A.
struct PruneLoraMaps {
  CUtensorMap x;
  CUtensorMap lora_a;
};

struct PruneLoraArguments {
  uint8_t* blocks;
  float* scale;
  uint16_t* t;
  int64_t t_stride;
  int rank;
  int m;
  int k_blocks;
};

/// A CTA's shared memory. Block i of the CTA is block 8 (i / 2) + 2 c + i % 2 of the row.
template <int kColumns>
struct LoraRing {
  static constexpr int kStages = lora_stages(kColumns);
  uint32_t base;
  int first_block;

  __device__ int block(int i) const { return kLoraClasses * (i / 2) + first_block + i % 2; }
  __device__ uint32_t x(int i) const { return base + i % kStages * lora_stage_bytes(kColumns); }
  __device__ uint32_t lora_a(int i) const { return x(i) + kBlockRows * kBlockK * 2; }
  __device__ uint32_t full(int i) const { return base + lora_barriers_offset(kColumns) + i % kStages * 16; }
  __device__ uint32_t empty(int i) const { return full(i) + 8; }
  __device__ uint32_t sums_barrier() const { return base + lora_barriers_offset(kColumns) + kStages * 16; }
  __device__ static uint32_t parity(int i) { return static_cast<uint32_t>(i / kStages) & 1u; }
};

/// By one thread: all blocks of this CTA, each as soon as its stage is free. Rows beyond m and columns beyond the rank
/// arrive as zeros.
template <int kColumns>
__device__ __forceinline__ void bring_blocks(const LoraRing<kColumns>& ring, const PruneLoraMaps& maps, int first_row,
                                             int k_blocks) {
#pragma unroll 1
  for (int i = 0; ring.block(i) < k_blocks; ++i) {
    const int k = ring.block(i) * kBlockK;
    ptx::mbarrier_wait(ring.empty(i), ring.parity(i) ^ 1u);
    ptx::mbarrier_arrive_expect_bytes(ring.full(i), lora_stage_bytes(kColumns));
    ptx::tensor_load(ring.x(i), &maps.x, k, first_row, ring.full(i));
    ptx::tensor_load(ring.lora_a(i), &maps.lora_a, k, 0, ring.full(i));
  }
}

/// By a warpgroup: the CTA's part of T, and to each of its rows' owners its 16 rows: warp w's go to CTA w.
template <int kColumns>
__device__ __forceinline__ void multiply_blocks(const LoraRing<kColumns>& ring, int cta, int k_blocks) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float t[kColumns / 2] = {};
#pragma unroll 1
  for (int i = 0; ring.block(i) < k_blocks; ++i) {
    ptx::mbarrier_wait(ring.full(i), ring.parity(i));
    const uint64_t x = ptx::descriptor_128(ring.x(i)), lora_a = ptx::descriptor_128(ring.lora_a(i));
    ptx::wgmma_fence();
    RTLYNX_UNROLL
    for (int step = 0; step < kBlockK / 16; ++step) ptx::wgmma_dense(t, x + 2 * step, lora_a + 2 * step);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    if (lane == 0) ptx::mbarrier_arrive(ring.empty(i));
  }
  ptx::cluster_wait();
  const uint32_t barrier = ptx::address_in_cluster(ring.sums_barrier(), warp);
  const uint32_t sums = ptx::address_in_cluster(ring.base + lora_t_offset(kColumns), warp) +
                        ((cta * kLoraOwnedRows + lane / 4) * lora_t_pitch(kColumns) + 2 * (lane % 4)) * 4;
  RTLYNX_UNROLL
  for (int tile = 0; tile < kColumns / 8; ++tile) {
    ptx::store_pair_in_cluster(sums + 32 * tile, make_float2(t[4 * tile], t[4 * tile + 1]), barrier);
    ptx::store_pair_in_cluster(sums + 32 * tile + 8 * 4 * lora_t_pitch(kColumns),
                               make_float2(t[4 * tile + 2], t[4 * tile + 3]), barrier);
  }
}

/// By one of eight warps: 16 rows of every other block, and their sums of squares to the rows' owner.
template <int kColumns>
__device__ __forceinline__ void prune_blocks(const LoraRing<kColumns>& ring, int warp, int cta, uint8_t* blocks,
                                             int k_blocks) {
  const int lane = threadIdx.x % 32, strip = warp % 4, row = 16 * strip + lane / 4;
  const int low_offset = value_offset(row, lane % 4), high_offset = value_offset(row + 8, lane % 4);
  const int word_offset = metadata_offset(row, lane % 4);
  SquareSums sums[2];
#pragma unroll 1
  for (int i = warp / 4; ring.block(i) < k_blocks; i += 2) {
    ptx::mbarrier_wait(ring.full(i), ring.parity(i));
    uint32_t low[8], high[8];
    load_rows(ring.x(i) + row * 2 * kBlockK, low, high);
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(ring.empty(i));
    uint8_t* block = blocks + block_offset(0, ring.block(i), k_blocks);
    const uint32_t low_bits = compress_quarter(low, block + low_offset, sums[0]);
    const uint32_t high_bits = compress_quarter(high, block + high_offset, sums[1]);
    *reinterpret_cast<uint32_t*>(block + word_offset) = low_bits | (high_bits << 16);
  }
  ptx::cluster_wait();
  const uint32_t barrier = ptx::address_in_cluster(ring.sums_barrier(), strip);
  const int k_class = 2 * cta + warp / 4;
  const uint32_t squares = ptx::address_in_cluster(ring.base + lora_squares_offset(kColumns), strip) +
                           (k_class * kLoraOwnedRows + lane / 4) * 8;
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float2 total = make_float2(add_quad(sums[half].all), add_quad(sums[half].kept));
    if (lane % 4 == 0) ptx::store_pair_in_cluster(squares + half * 8 * 8, total, barrier);
  }
}

__device__ __forceinline__ uint32_t rounded_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// T of the CTA's own 16 of the 64 rows from all CTAs' sums, 8 columns a thread.
template <int kColumns>
__device__ __forceinline__ void write_t(const uint8_t* shared, int first_row, const PruneLoraArguments& args) {
  const int row = static_cast<int>(threadIdx.x) / (kColumns / 8),
            column = static_cast<int>(threadIdx.x) % (kColumns / 8) * 8;
  if (row >= kLoraOwnedRows || first_row + row >= args.m || column >= args.rank) return;
  float4 left{}, right{};
  RTLYNX_UNROLL
  for (int cta = 0; cta < kLoraClusterSize; ++cta) {
    const auto* part = reinterpret_cast<const float4*>(
        shared + lora_t_offset(kColumns) + ((cta * kLoraOwnedRows + row) * lora_t_pitch(kColumns) + column) * 4);
    const float4 a = part[0], b = part[1];
    left.x += a.x, left.y += a.y, left.z += a.z, left.w += a.w;
    right.x += b.x, right.y += b.y, right.z += b.z, right.w += b.w;
  }
  *reinterpret_cast<uint4*>(args.t + (first_row + row) * args.t_stride + column) =
      make_uint4(rounded_pair(left.x, left.y), rounded_pair(left.z, left.w), rounded_pair(right.x, right.y),
                 rounded_pair(right.z, right.w));
}

/// The scales of the same rows.
__device__ __forceinline__ void write_scales(const float2* squares, int lane, int first_row,
                                             const PruneLoraArguments& args) {
  if (lane >= kLoraOwnedRows || first_row + lane >= args.m) return;
  float2 total = squares[lane];
  RTLYNX_UNROLL
  for (int k_class = 1; k_class < kLoraClasses; ++k_class) {
    const float2 part = squares[k_class * kLoraOwnedRows + lane];
    total = make_float2(__fadd_rn(total.x, part.x), __fadd_rn(total.y, part.y));
  }
  args.scale[first_row + lane] = scale_of(total.x, total.y);
}

template <int kColumns>
__global__ void __cluster_dims__(kLoraClusterSize) __launch_bounds__(kLoraThreads, lora_ctas_per_sm(kColumns))
    prune_lora_kernel(const __grid_constant__ PruneLoraMaps maps, const __grid_constant__ PruneLoraArguments args) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warp = threadIdx.x / 32, cta = static_cast<int>(ptx::cluster_rank());
  const int row_block = static_cast<int>(blockIdx.x) / kLoraClusterSize, first_row = row_block * kBlockRows;
  const LoraRing<kColumns> ring{ptx::shared_address(shared), 2 * cta};
  if (threadIdx.x == 0) {
    for (int i = 0; i < ring.kStages; ++i) {
      ptx::mbarrier_init(ring.full(i), 1);
      ptx::mbarrier_init(ring.empty(i), 8);  // four warps that prune this block, four that multiply
    }
    ptx::mbarrier_init(ring.sums_barrier(), 1);
    ptx::mbarrier_init_fence();
    ptx::mbarrier_arrive_expect_bytes(ring.sums_barrier(), lora_sums_bytes(kColumns));
  }
  __syncthreads();
  // Others may send sums from now on; whoever sends waits for all.
  ptx::cluster_arrive();

  if (warp < kLoraMultiplyWarps) {
    multiply_blocks(ring, cta, args.k_blocks);
  } else if (warp < kLoraMultiplyWarps + kLoraPruneWarps) {
    prune_blocks(ring, warp - kLoraMultiplyWarps, cta, args.blocks + block_offset(row_block, 0, args.k_blocks),
                 args.k_blocks);
  } else {
    if (threadIdx.x % 32 == 0) bring_blocks(ring, maps, first_row, args.k_blocks);
    __syncwarp();
    ptx::cluster_wait();
  }
  // Nobody sends to a CTA that has all its sums: it may end.
  ptx::mbarrier_wait(ring.sums_barrier(), 0);
  const int owned = first_row + kLoraOwnedRows * cta;
  write_t<kColumns>(shared, owned, args);
  if (warp == kLoraMultiplyWarps + kLoraPruneWarps) {
    write_scales(reinterpret_cast<const float2*>(shared + lora_squares_offset(kColumns)),
                 static_cast<int>(threadIdx.x % 32), owned, args);
  }
}

}  // namespace rtlynx::sm90a
