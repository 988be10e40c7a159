#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/ptx/cluster.cuh"
#include "kernels/sm90a/ptx/copy.cuh"
#include "kernels/sm90a/ptx/mbarrier.cuh"
#include "kernels/sm90a/ptx/wgmma.cuh"
#include "kernels/sm90a/spmm_config.h"
#include "kernels/sm90a/spmm_epilogue.cuh"
#include "kernels/sm90a/spmm_ring.cuh"

/// Device code of spmm. Persistent CTAs in clusters of two; one producer thread feeds a ring of shared-memory stages,
/// the consumer warpgroups multiply out of it and keep their 64 x columns sums in registers.
///
/// What bounds it (H100, 128x256, cycles per 64 k; the tensor cores alone need 512): wgmma reads W at 128 bytes a
/// cycle, all that shared memory delivers, and A's kept values on top, 605 in all; the ring adds about 15. Copies into
/// shared memory are free beside that. So A's values go through shared memory only once, and its metadata not at all.
namespace rtlynx::sm90a {

/// Tensor maps: boxes of 64 k x half a tile of W; 32 factors x tile rows of T; 32 factors x half a tile of L_B; 64
/// columns x 16 rows of D.
struct SpmmMaps {
  CUtensorMap weight;
  CUtensorMap lora_down;
  CUtensorMap lora_up;
  CUtensorMap output;
};

struct SpmmArguments {
  const uint8_t* blocks;
  const float* scale;  ///< null: 1
  const uint16_t* bias;
  TileOrder order;
  int m;
  int n;
  int k_blocks;
  int row_blocks;
  int lora_steps;
};

/// Where this CTA's (or warpgroup's) stream of blocks begins. Row blocks beyond the last one read the last one again:
/// their products fall outside of D and are never stored.
__device__ __forceinline__ const uint8_t* block_stream(const SpmmArguments& args, int row_block) {
  const int clamped = row_block < args.row_blocks ? row_block : args.row_blocks - 1;
  return args.blocks + block_offset(clamped, 0, args.k_blocks);
}

template <int kTile>
__device__ __forceinline__ int first_row_block(const TileOrder::Position& position, uint32_t rank) {
  return (position.row_tile * kClusterSize + static_cast<int>(rank)) * kSpmmTiles[kTile].consumers;
}

/// One thread: every stage of every tile, the k of the product first, then those of the low-rank branch.
template <int kTile>
__device__ __forceinline__ void produce(const SpmmMaps& maps, const SpmmArguments& args, const Ring<kTile>& ring,
                                        uint32_t rank) {
  constexpr SpmmTile kShape = kSpmmTiles[kTile];
  constexpr uint16_t kBothCtas = (1u << kClusterSize) - 1;
  constexpr int kHalfColumns = kShape.columns / kClusterSize;
  RingPosition<kTile> position;
  for (int index = blockIdx.x / kClusterSize; index < args.order.count(); index += gridDim.x / kClusterSize) {
    const TileOrder::Position tile = args.order.at(index);
    const int row_block = first_row_block<kTile>(tile, rank);
    const int column = tile.column_tile * kShape.columns + static_cast<int>(rank) * kHalfColumns;
    const uint8_t* values[kShape.consumers];
    RTLYNX_UNROLL
    for (int c = 0; c < kShape.consumers; ++c) values[c] = block_stream(args, row_block + c);

    for (int k_block = 0; k_block < args.k_blocks; ++k_block) {
      ring.wait_empty(position);
      const uint32_t full = ring.full(position.stage);
      ptx::mbarrier_arrive_expect_bytes(full, kShape.weight_bytes() + kShape.value_bytes());
      ptx::tensor_load_multicast(ring.weight(position.stage) + rank * (kShape.weight_bytes() / kClusterSize),
                                 &maps.weight, k_block * kBlockK, column, full, kBothCtas);
      RTLYNX_UNROLL
      for (int c = 0; c < kShape.consumers; ++c) {
        ptx::bulk_load(ring.values(position.stage, c), values[c], kValueBytes, full);
        values[c] += kBlockBytes;
      }
      position.advance();
    }
    // 32 factors of T are 64 bytes a row, just what the kept values of 64 k are; 32 of L_B fill half of W's slot.
    for (int step = 0; step < args.lora_steps; ++step) {
      ring.wait_empty(position);
      const uint32_t full = ring.full(position.stage);
      ptx::mbarrier_arrive_expect_bytes(full, kShape.weight_bytes() / 2 + kShape.value_bytes());
      ptx::tensor_load_multicast(ring.weight(position.stage) + rank * (kShape.weight_bytes() / 2 / kClusterSize),
                                 &maps.lora_up, step * kLoraStepColumns, column, full, kBothCtas);
      ptx::tensor_load(ring.values(position.stage, 0), &maps.lora_down, step * kLoraStepColumns, row_block * kBlockRows,
                       full);
      position.advance();
    }
  }
}

/// Metadata words of one lane for a few steps. ptxas tracks all loads of a loop by one scoreboard, so that waiting for
/// any of them waits for the newest; loading a whole group at once, one group ahead, makes that wait harmless.
inline constexpr int kMetadataGroup = 3;
using MetadataGroup = uint32_t[kMetadataGroup];

/// `stream` is the lane's word of k block 0; blocks beyond the last one repeat it.
__device__ __forceinline__ void load_metadata(MetadataGroup& group, const uint8_t* stream, int k_block, int k_blocks) {
  RTLYNX_UNROLL
  for (int i = 0; i < kMetadataGroup; ++i) {
    const int clamped = k_block + i < k_blocks ? k_block + i : k_blocks - 1;
    group[i] = ptx::load_streamed(stream + static_cast<int64_t>(clamped) * kBlockBytes);
  }
}

/// The sums of one warpgroup: 64 rows x the tile's columns.
template <int kTile>
struct Consumer {
  static constexpr SpmmTile kShape = kSpmmTiles[kTile];
  using Multiply = ptx::Wgmma<kShape.columns>;

  const SpmmArguments& args;
  const Ring<kTile>& ring;
  const int warpgroup;
  const int lane;  ///< 0..127
  RingPosition<kTile> position;
  float sums[kShape.columns / 2];
  MetadataGroup even, odd;

  /// The lane's metadata word of the first k block of a tile; past the last tile any valid address.
  __device__ __forceinline__ const uint8_t* metadata_stream(int index, uint32_t rank) const {
    const int last = args.order.count() - 1;
    const TileOrder::Position tile = args.order.at(index < last ? index : last);
    return block_stream(args, first_row_block<kTile>(tile, rank) + warpgroup) + kValueBytes + 4 * lane;
  }

  /// One k block: queues its two products, then waits for those of the block before it and hands its stage back.
  __device__ __forceinline__ void step(uint32_t metadata, bool first) {
    ring.wait_full(position);
    const uint64_t a = ptx::descriptor_64(ring.values(position.stage, warpgroup));
    const uint64_t b = ptx::descriptor_128(ring.weight(position.stage));
    ptx::wgmma_fence();
    Multiply::template sparse<0>(sums, a, b, metadata, first ? 0 : 1);
    Multiply::template sparse<1>(sums, a + 32 / 16, b + 64 / 16, metadata, 1);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    if (!first) ring.release(position.previous_stage(), lane);
    position.advance();
  }

  /// Two groups of steps from `k_block`. `even` holds the first group's metadata already; each group's successor is
  /// loaded after its first step, when the products that read the registers before have finished.
  template <bool kPartial>
  __device__ __forceinline__ void two_groups(const uint8_t* metadata, int k_block) {
    RTLYNX_UNROLL
    for (int i = 0; i < kMetadataGroup; ++i) {
      if (kPartial && k_block + i >= args.k_blocks) return;
      step(even[i], i == 0 && k_block == 0);
      if (i == 0) load_metadata(odd, metadata, k_block + kMetadataGroup, args.k_blocks);
    }
    RTLYNX_UNROLL
    for (int i = 0; i < kMetadataGroup; ++i) {
      if (kPartial && k_block + kMetadataGroup + i >= args.k_blocks) return;
      step(odd[i], false);
      if (i == 0) load_metadata(even, metadata, k_block + 2 * kMetadataGroup, args.k_blocks);
    }
  }

  /// sums = A W^T of one tile. All stages are handed back and all products finished at the end.
  __device__ __forceinline__ void multiply(const uint8_t* metadata) {
    int k_block = 0;
    for (; k_block + 2 * kMetadataGroup <= args.k_blocks; k_block += 2 * kMetadataGroup) {
      two_groups<false>(metadata, k_block);
    }
    if (k_block < args.k_blocks) two_groups<true>(metadata, k_block);
    ptx::wgmma_wait<0>();
    ring.release(position.previous_stage(), lane);
  }

  /// sums += T L_B, 32 factors a stage.
  __device__ __forceinline__ void add_low_rank() {
    for (int i = 0; i < args.lora_steps; ++i) {
      ring.wait_full(position);
      const uint64_t a = ptx::descriptor_64(ring.values(position.stage, warpgroup));
      const uint64_t b = ptx::descriptor_64(ring.weight(position.stage));
      ptx::wgmma_fence();
      Multiply::dense(sums, a, b);
      Multiply::dense(sums, a + 32 / 16, b + 32 / 16);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      ring.release(position.stage, lane);
      position.advance();
    }
  }

  __device__ __forceinline__ void run(const SpmmMaps& maps, uint32_t rank, uint32_t staging) {
    const int stride = gridDim.x / kClusterSize;
    int index = blockIdx.x / kClusterSize;
    const uint8_t* metadata = metadata_stream(index, rank);
    load_metadata(even, metadata, 0, args.k_blocks);
    for (; index < args.order.count(); index += stride) {
      multiply(metadata);
      // The next tile's first group arrives while this tile is written.
      metadata = metadata_stream(index + stride, rank);
      load_metadata(even, metadata, 0, args.k_blocks);
      const TileOrder::Position tile = args.order.at(index);
      const int row = (first_row_block<kTile>(tile, rank) + warpgroup) * kBlockRows + 16 * (lane / 32);
      if (args.scale != nullptr) scale_rows(sums, args.scale, row, args.m);
      add_low_rank();
      store_sums(sums, maps.output, args.bias, row, tile.column_tile * kShape.columns, args.m, args.n, staging);
    }
    if (lane % 32 == 0) ptx::store_wait();
  }
};

template <int kTile>
__global__ void __launch_bounds__(kSpmmTiles[kTile].threads(), 1)
    spmm_kernel(const __grid_constant__ SpmmMaps maps, const __grid_constant__ SpmmArguments args) {
  constexpr SpmmTile kShape = kSpmmTiles[kTile];
  extern __shared__ uint8_t dynamic_shared[];
  // Both CTAs round the same address up, so that a stage lies at one offset in both, as multicast needs.
  const uint32_t shared = (ptx::shared_address(dynamic_shared) + 1023u) & ~1023u;
  const Ring<kTile> ring{shared};
  const uint32_t rank = ptx::cluster_rank();
  const int warpgroup = threadIdx.x / 128;
  if (threadIdx.x == 0) ring.init();
  __syncthreads();
  ptx::cluster_sync();

  if (warpgroup == kShape.consumers) {
    ptx::registers_down<kShape.producer_registers>();
    if (threadIdx.x % 128 == 0) produce<kTile>(maps, args, ring, rank);
    __syncwarp();
  } else {
    ptx::registers_up<kShape.consumer_registers>();
    Consumer<kTile> consumer{args, ring, warpgroup, static_cast<int>(threadIdx.x % 128)};
    consumer.run(maps, rank, ring.staging(threadIdx.x / 32));
  }
  // A CTA must not leave while the other one may still write to its shared memory or arrive at its barriers.
  ptx::cluster_sync();
}

}  // namespace rtlynx::sm90a
