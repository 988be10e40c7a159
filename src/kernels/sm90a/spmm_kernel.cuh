#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/ptx/cluster.cuh"
#include "kernels/sm90a/ptx/copy.cuh"
#include "kernels/sm90a/ptx/mbarrier.cuh"
#include "kernels/sm90a/ptx/wgmma.cuh"
#include "kernels/sm90a/spmm_arguments.h"
#include "kernels/sm90a/spmm_compress.cuh"
#include "kernels/sm90a/spmm_epilogue.cuh"
#include "kernels/sm90a/spmm_ring.cuh"

/// Device code of spmm. Persistent CTAs in clusters of two; one producer thread feeds a ring of shared-memory stages,
/// the consumer warpgroups multiply out of it and keep their 64 x columns sums in registers.
///
/// What bounds it (H100, 128x256, cycles per 64 k; the tensor cores alone need 512): wgmma reads W at 128 bytes a
/// cycle, all that shared memory delivers, and A's kept values on top, 605 in all; the ring adds about 15. Copies into
/// shared memory are free beside that. So A's values go through shared memory only once, and its metadata not at all.
namespace rtlynx::sm90a {

/// Where this CTA's (or warpgroup's) stream of blocks begins. Row blocks beyond the last one read the last one again:
/// their products fall outside of D and are never stored.
__device__ __forceinline__ const uint8_t* block_stream(const SpmmArguments& args, int row_block) {
  const int clamped = row_block < args.row_blocks ? row_block : args.row_blocks - 1;
  return args.blocks + block_offset(clamped, 0, args.k_blocks);
}

/// One thread: every stage of every tile, the k of the product first, then those of the low-rank branch.
template <int kTile, SpmmTile kShape>
__device__ __forceinline__ void produce(const SpmmMaps& maps, const SpmmArguments& args, const Ring<kShape>& ring,
                                        uint32_t rank) {
  constexpr uint16_t kBothCtas = (1u << kClusterSize) - 1;
  constexpr int kHalfColumns = kShape.columns / kClusterSize;
  RingPosition<kShape> position;
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
template <int kTile, Epilogue kEpilogue>
struct Consumer {
  static constexpr SpmmTile kShape = with_epilogue(kSpmmTiles[kTile], kEpilogue);
  using Multiply = ptx::Wgmma<kShape.columns>;

  const SpmmArguments& args;
  const Ring<kShape>& ring;
  const int warpgroup;
  const int lane;  ///< 0..127
  RingPosition<kShape> position;
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

  /// sums = A W^T of one tile. All stages are handed back and all products finished at the end. `underway` is called
  /// once, when the tensor cores have work.
  template <typename Underway>
  __device__ __forceinline__ void multiply(const uint8_t* metadata, const Underway& underway) {
    int k_block = 0;
    for (; k_block + 2 * kMetadataGroup <= args.k_blocks; k_block += 2 * kMetadataGroup) {
      two_groups<false>(metadata, k_block);
      if (k_block == 0) underway();
    }
    if (k_block == 0) underway();
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

  /// The first of the warp's 16 rows in tile `index`.
  __device__ __forceinline__ int first_row(const TileOrder::Position& tile, uint32_t rank) const {
    return (first_row_block<kTile>(tile, rank) + warpgroup) * kBlockRows + 16 * (lane / 32);
  }

  /// What is left to do with the finished sums of the `count`-th tile (from 0) of this CTA.
  __device__ __forceinline__ void finish(const SpmmMaps& maps, int row, int column, int count) {
    const int strip = threadIdx.x / 32;
    const uint32_t staging = ring.staging(strip), parity = count & 1;
    if constexpr (is_compressed(kEpilogue)) {
      ptx::mbarrier_wait(ring.strip_free(strip), parity ^ 1);
      stage_sums(sums, args.bias, column, args.n, staging);
      __syncwarp();
      if (lane % 32 == 0) ptx::mbarrier_arrive(ring.strip_full(strip));
    } else if constexpr (kEpilogue == Epilogue::kGatedResidual) {
      ptx::mbarrier_wait(ring.strip_full(strip), parity);
      store_gated(sums, maps.output, args, row, column, staging);
    } else {
      store_sums<kEpilogue == Epilogue::kGelu>(sums, maps.output, args.bias, row, column, args.m, args.n, staging);
    }
  }

  __device__ __forceinline__ void run(const SpmmMaps& maps, uint32_t rank) {
    const int stride = gridDim.x / kClusterSize;
    int index = blockIdx.x / kClusterSize;
    const uint8_t* metadata = metadata_stream(index, rank);
    load_metadata(even, metadata, 0, args.k_blocks);
    for (int count = 0; index < args.order.count(); index += stride, ++count) {
      multiply(metadata, [&] {
        if constexpr (kEpilogue == Epilogue::kGatedResidual) {
          const TileOrder::Position tile = args.order.at(index);
          const int strip = threadIdx.x / 32;
          fetch_residual<kShape.columns>(maps.residual, first_row(tile, rank), tile.column_tile * kShape.columns,
                                         args.m, args.n, ring.staging(strip), ring.strip_full(strip));
        }
      });
      // The next tile's first group arrives while this tile is written.
      metadata = metadata_stream(index + stride, rank);
      load_metadata(even, metadata, 0, args.k_blocks);
      const TileOrder::Position tile = args.order.at(index);
      const int row = first_row(tile, rank);
      if (args.scale != nullptr) scale_rows(sums, args.scale, row, args.m);
      add_low_rank();
      finish(maps, row, tile.column_tile * kShape.columns, count);
    }
    if constexpr (!is_compressed(kEpilogue)) {
      if (lane % 32 == 0) ptx::store_wait();
    }
  }
};

template <int kTile, Epilogue kEpilogue>
__global__ void __launch_bounds__(kSpmmTiles[kTile].threads(), 1)
    spmm_kernel(const __grid_constant__ SpmmMaps maps, const __grid_constant__ SpmmArguments args) {
  constexpr SpmmTile kShape = with_epilogue(kSpmmTiles[kTile], kEpilogue);
  extern __shared__ uint8_t dynamic_shared[];
  // Both CTAs round the same address up, so that a stage lies at one offset in both, as multicast needs.
  const uint32_t shared = (ptx::shared_address(dynamic_shared) + 1023u) & ~1023u;
  const Ring<kShape> ring{shared};
  const uint32_t rank = ptx::cluster_rank();
  const int warpgroup = threadIdx.x / 128;
  if (threadIdx.x == 0) ring.init();
  __syncthreads();
  ptx::cluster_sync();

  if (warpgroup == kShape.consumers) {
    ptx::registers_down<kShape.producer_registers>();
    const int warp = threadIdx.x % 128 / 32;
    if (threadIdx.x % 128 == 0) produce<kTile>(maps, args, ring, rank);
    if constexpr (is_compressed(kEpilogue)) {
      if (warp > 0) compress_strips<kTile, kShape, kEpilogue == Epilogue::kGeluCompressed>(args, ring, rank, warp - 1);
    }
    __syncwarp();
  } else {
    ptx::registers_up<kShape.consumer_registers>();
    Consumer<kTile, kEpilogue> consumer{args, ring, warpgroup, static_cast<int>(threadIdx.x % 128)};
    consumer.run(maps, rank);
  }
  // A CTA must not leave while the other one may still write to its shared memory or arrive at its barriers.
  ptx::cluster_sync();
}

template <Epilogue kEpilogue>
SpmmKernel spmm_kernel_of(int tile) {
  constexpr SpmmKernel kKernels[kSpmmTileCount] = {spmm_kernel<0, kEpilogue>, spmm_kernel<1, kEpilogue>,
                                                   spmm_kernel<2, kEpilogue>};
  return kKernels[tile];
}

}  // namespace rtlynx::sm90a
