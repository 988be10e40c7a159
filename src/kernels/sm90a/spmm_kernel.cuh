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
#include "kernels/sm90a/spmm_operands.cuh"
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
template <Format kFormat>
__device__ __forceinline__ const uint8_t* block_stream(const SpmmArguments& args, int row_block) {
  const int clamped = row_block < args.row_blocks ? row_block : args.row_blocks - 1;
  return args.blocks + static_cast<int64_t>(clamped) * args.k_blocks * Operands<kFormat>::kBlockBytes;
}

/// Bias, the gate of the image of the CTA's first row, and the column factors of FP8, by the producer.
template <int kTile, Epilogue kEpilogue, SpmmTile kShape>
__device__ __forceinline__ void load_vectors(const SpmmArguments& args, const Ring<kShape>& ring, uint32_t rank,
                                             const TileOrder::Position& tile) {
  const int column = tile.column_tile * kShape.columns;
  const int columns = args.n - column < kShape.columns ? args.n - column : kShape.columns;
  const uint16_t* vectors[2] = {args.bias, nullptr};
  if constexpr (kEpilogue == Epilogue::kGatedResidual) {
    vectors[1] = args.gate + image_of_row(args, first_row_block<kTile>(tile, rank) * kBlockRows) * args.gate_stride;
  }
  int bytes = ((vectors[0] != nullptr) + (vectors[1] != nullptr)) * columns * 2;
  if constexpr (kShape.factor_bytes > 0) bytes += columns * 4;
  if (bytes == 0) return;
  ptx::mbarrier_arrive_expect_bytes(ring.vectors_full(), bytes);
  if constexpr (kShape.factor_bytes > 0) {
    ptx::bulk_load(ring.factors(), args.column_factor + column, columns * 4, ring.vectors_full());
  }
  if (vectors[0] != nullptr) ptx::bulk_load(ring.bias(), vectors[0] + column, columns * 2, ring.vectors_full());
  if (vectors[1] != nullptr) ptx::bulk_load(ring.gate(), vectors[1] + column, columns * 2, ring.vectors_full());
}

/// One warp: every stage of every tile, the k of the product first, then those of the low-rank branch. All its lanes
/// walk the loops and one elected lane issues: then the compiler keeps addresses in uniform registers, whereas in a
/// branch of a single thread it wraps every copy into a loop over lanes, some 60 cycles each.
template <int kTile, Epilogue kEpilogue, Format kFormat, SpmmTile kShape>
__device__ __forceinline__ void produce(const SpmmMaps& maps, const SpmmArguments& args, const Ring<kShape>& ring,
                                        uint32_t rank) {
  constexpr uint16_t kBothCtas = (1u << kClusterSize) - 1;
  constexpr int kHalfColumns = kShape.columns / kClusterSize;
  RingPosition<kShape> position;
  for (int index = blockIdx.x / kClusterSize; index < args.order.count(); index += gridDim.x / kClusterSize) {
    const TileOrder::Position tile = args.order.at(index);
    const int row_block = first_row_block<kTile>(tile, rank);
    const int column = tile.column_tile * kShape.columns + static_cast<int>(rank) * kHalfColumns;

    for (int k_block = 0; k_block < args.k_blocks; ++k_block) {
      ring.wait_empty(position);
      if (ptx::elect_lane()) {
        const uint32_t full = ring.full(position.stage);
        ptx::mbarrier_arrive_expect_bytes(full, kShape.weight_bytes() + kShape.value_bytes());
        ptx::tensor_load_multicast(ring.weight(position.stage) + rank * (kShape.weight_bytes() / kClusterSize),
                                   &maps.weight, k_block * Operands<kFormat>::kBlockK, column, full, kBothCtas);
        RTLYNX_UNROLL
        for (int c = 0; c < kShape.consumers; ++c) {
          ptx::bulk_load(ring.values(position.stage, c),
                         block_stream<kFormat>(args, row_block + c) + k_block * int64_t{Operands<kFormat>::kBlockBytes},
                         kValueBytes, full);
        }
      }
      position.advance();
    }
    // 32 factors of T are 64 bytes a row, just what the kept values of 64 k are; 32 of L_B fill half of W's slot.
    for (int step = 0; step < args.lora_steps; ++step) {
      ring.wait_empty(position);
      if (ptx::elect_lane()) {
        const uint32_t full = ring.full(position.stage);
        ptx::mbarrier_arrive_expect_bytes(full, kShape.weight_bytes() / 2 + kShape.value_bytes());
        ptx::tensor_load_multicast(ring.weight(position.stage) + rank * (kShape.weight_bytes() / 2 / kClusterSize),
                                   &maps.lora_up, step * kLoraStepColumns, column, full, kBothCtas);
        ptx::tensor_load(ring.values(position.stage, 0), &maps.lora_down, step * kLoraStepColumns,
                         row_block * kBlockRows, full);
      }
      position.advance();
    }
    // Consumers that have handed back this tile's first stage are done with the previous tile's vectors.
    const int steps = args.k_blocks + args.lora_steps;
    if (steps <= kShape.stages) ring.wait_released(position.before(steps));
    if (ptx::elect_lane()) load_vectors<kTile, kEpilogue>(args, ring, rank, tile);
  }
}

/// Metadata words of one lane for a few steps. ptxas tracks all loads of a loop by one scoreboard, so that waiting for
/// any of them waits for the newest; loading a whole group at once, one group ahead, makes that wait harmless.
/// Two steps instead of three where registers are few and words many.
template <Format kFormat>
constexpr int metadata_group(const SpmmTile& tile) {
  return kFormat == Format::kFp8 && tile.consumers > 2 ? 2 : 3;
}

/// `stream` is the lane's metadata of k block 0; blocks beyond the last one repeat it.
template <Format kFormat, int kCount>
__device__ __forceinline__ void load_metadata(typename Operands<kFormat>::Metadata (&group)[kCount],
                                              const uint8_t* stream, int k_block, int k_blocks) {
  RTLYNX_UNROLL
  for (int i = 0; i < kCount; ++i) {
    const int clamped = k_block + i < k_blocks ? k_block + i : k_blocks - 1;
    group[i] = Operands<kFormat>::load(stream + static_cast<int64_t>(clamped) * Operands<kFormat>::kBlockBytes);
  }
}

/// Which rows and columns a consumer warp works on.
struct WarpTile {
  int row;     ///< the first of 16
  int column;  ///< the tile's first
};

/// The sums of one warpgroup: 64 rows x the tile's columns.
template <int kTile, Epilogue kEpilogue, Format kFormat>
struct Consumer {
  static constexpr SpmmTile kShape = with_epilogue(kSpmmTiles[kTile], kEpilogue, kFormat);
  static constexpr int kMetadataGroup = metadata_group<kFormat>(kShape);
  using Multiply = ptx::Wgmma<kShape.columns>;
  using Metadata = typename Operands<kFormat>::Metadata;
  using MetadataGroup = Metadata[kMetadataGroup];
  /// Whether the next tile is found during the last steps of this one; three warpgroups have no registers for that.
  static constexpr bool kNextEarly = kShape.consumers == 2;

  const SpmmMaps& maps;
  const SpmmArguments& args;
  const Ring<kShape>& ring;
  const uint32_t rank;
  const int warpgroup;
  const int lane;  ///< 0..127
  RingPosition<kShape> position;
  float sums[kShape.columns / 2];
  MetadataGroup even, odd;
  int count = 0;  ///< of tiles before this one
  WarpTile tile, next;

  /// The number of this CTA's `count`-th tile (from 0).
  __device__ __forceinline__ static int index_of(int count) {
    return static_cast<int>((blockIdx.x + count * gridDim.x) / kClusterSize);
  }

  /// Past the last tile the last one again, so that loads ahead stay inside.
  __device__ __forceinline__ WarpTile tile_at(int index) const {
    const int last = args.order.count() - 1;
    const TileOrder::Position at = args.order.at(index < last ? index : last);
    const int row_block = first_row_block<kTile>(at, rank);
    return {(row_block + warpgroup) * kBlockRows + 16 * (lane / 32), at.column_tile * kShape.columns};
  }

  /// The lane's metadata of a group of k blocks. No pointer is kept from group to group: registers are scarce.
  __device__ __forceinline__ void load_group(MetadataGroup& group, const WarpTile& of, int k_block) const {
    const uint8_t* stream = block_stream<kFormat>(args, of.row / kBlockRows);
    load_metadata<kFormat>(group, stream + Operands<kFormat>::metadata_of_lane(lane), k_block, args.k_blocks);
  }

  /// One k block: queues its two products, then waits for those of the block before it and hands its stage back.
  __device__ __forceinline__ void step(Metadata metadata, bool first) {
    ring.wait_full(position);
    const uint64_t a = ptx::descriptor_64(ring.values(position.stage, warpgroup));
    const uint64_t b = ptx::descriptor_128(ring.weight(position.stage));
    ptx::wgmma_fence();
    Operands<kFormat>::template multiply<Multiply>(sums, a, b, metadata, first ? 0 : 1);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    if (!first) ring.release(position.previous_stage(), lane);
    position.advance();
  }

  /// Finds the next tile, which takes several divisions, and loads its first group.
  __device__ __forceinline__ void load_next() {
    next = tile_at(index_of(count + 1));
    load_group(even, next, 0);
  }

  /// Two groups of steps from `k_block`. `even` holds the first group's metadata already; each group's successor is
  /// loaded after its first step, when the products that read the registers before have finished. The successor of the
  /// last group is the next tile's first.
  template <bool kPartial>
  __device__ __forceinline__ void two_groups(int k_block) {
    RTLYNX_UNROLL
    for (int i = 0; i < kMetadataGroup; ++i) {
      if (kPartial && k_block + i >= args.k_blocks) return;
      step(even[i], i == 0 && k_block == 0);
      if (i == 0) load_group(odd, tile, k_block + kMetadataGroup);
    }
    RTLYNX_UNROLL
    for (int i = 0; i < kMetadataGroup; ++i) {
      if (kPartial && k_block + kMetadataGroup + i >= args.k_blocks) return;
      step(odd[i], false);
      if (i == 0) {
        const int successor = k_block + 2 * kMetadataGroup;
        if (successor < args.k_blocks) {
          load_group(even, tile, successor);
        } else if constexpr (kNextEarly) {
          load_next();
        }
      }
    }
  }

  /// sums = A W^T of one tile. All stages are handed back and all products finished at the end, and `even` is the next
  /// tile's. `underway` is called once, when the tensor cores have work.
  template <typename Underway>
  __device__ __forceinline__ void multiply(const Underway& underway) {
    int k_block = 0;
    bool whole;
    do {
      whole = k_block + 2 * kMetadataGroup <= args.k_blocks;
      if (whole) two_groups<false>(k_block);
      if (k_block == 0) underway();
      if (whole) k_block += 2 * kMetadataGroup;
    } while (whole && k_block < args.k_blocks);
    const int left = args.k_blocks - k_block;
    if (left > 0) two_groups<true>(k_block);
    ptx::wgmma_wait<0>();
    ring.release(position.previous_stage(), lane);
    if (!kNextEarly || (left > 0 && left <= kMetadataGroup)) load_next();
  }

  /// sums += T L_B, 32 factors a stage; finished at the end.
  __device__ __forceinline__ void add_low_rank() {
    if (args.lora_steps == 0) return;
    for (int i = 0; i < args.lora_steps; ++i) {
      ring.wait_full(position);
      const uint64_t a = ptx::descriptor_64(ring.values(position.stage, warpgroup));
      const uint64_t b = ptx::descriptor_64(ring.weight(position.stage));
      ptx::wgmma_fence();
      Multiply::dense(sums, a, b);
      Multiply::dense(sums, a + 32 / 16, b + 32 / 16);
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      if (i > 0) ring.release(position.previous_stage(), lane);
      position.advance();
    }
    ptx::wgmma_wait<0>();
    ring.release(position.previous_stage(), lane);
  }

  /// Whether all of the warp's rows belong to the image of the CTA's first row, whose gate the producer fetches.
  __device__ __forceinline__ bool one_image() const {
    if (args.tokens_per_image == args.m) return true;
    return image_of_row(args, tile.row + 15) == image_of_row(args, tile.row - 16 * static_cast<int>(threadIdx.x / 32));
  }

  /// What is left to do with the finished sums of the tile.
  __device__ __forceinline__ void finish() {
    const int strip = threadIdx.x / 32;
    const uint32_t staging = ring.staging(strip), parity = count & 1;
    if constexpr (kFormat == Format::kBf16) {
      if (args.bias != nullptr || kEpilogue == Epilogue::kGatedResidual) {
        ptx::mbarrier_wait(ring.vectors_full(), parity);
      }
    }
    if constexpr (is_compressed(kEpilogue)) {
      ptx::mbarrier_wait(ring.strip_free(strip), parity ^ 1);
      stage_sums(sums, ring.bias(), tile.column, args.n, staging);
      __syncwarp();
      if (lane % 32 == 0) ptx::mbarrier_arrive(ring.strip_full(strip));
    } else if constexpr (kEpilogue == Epilogue::kGatedResidual) {
      ptx::mbarrier_wait(ring.strip_full(strip), parity);
      if (one_image()) {
        store_gated<true>(sums, maps.output, args, ring.bias(), ring.gate(), tile.row, tile.column, staging);
      } else {
        store_gated<false>(sums, maps.output, args, ring.bias(), ring.gate(), tile.row, tile.column, staging);
      }
    } else {
      store_sums<kEpilogue == Epilogue::kGelu>(sums, maps.output, ring.bias(), tile.row, tile.column, args.m, args.n,
                                               staging);
    }
  }

  __device__ __forceinline__ void run() {
    tile = tile_at(index_of(0));
    load_group(even, tile, 0);
    const PhaseClock clock(args.phases);
    for (;; ++count) {
      RowScales scales;
      if (args.scale != nullptr) scales = load_scales(args.scale, tile.row, args.m);
      multiply([&] {
        if constexpr (kEpilogue == Epilogue::kGatedResidual) {
          const int strip = ptx::thread_now() / 32;  // so that no address is kept through the main loop
          fetch_residual<kShape.columns>(maps.residual, tile.row, tile.column, args.m, args.n, ring.staging(strip),
                                         ring.strip_full(strip));
        }
      });
      clock.lap(SpmmPhase::kMultiply);
      if (args.scale != nullptr) scale_rows(sums, scales);
      if constexpr (kFormat == Format::kFp8) {
        ptx::mbarrier_wait(ring.vectors_full(), count & 1);
        scale_columns(sums, ring.factors());
      }
      add_low_rank();
      clock.lap(SpmmPhase::kLowRank);
      finish();
      clock.lap(SpmmPhase::kFinish);
      if (index_of(count + 1) >= args.order.count()) break;
      tile = next;
    }
    clock.stop();
    if constexpr (is_compressed(kEpilogue)) {
      compress_strip<kShape, kEpilogue == Epilogue::kGeluCompressed>(args, ring.staging(threadIdx.x / 32), ring.zeros(),
                                                                     tile.row, tile.column);
    } else {
      if (lane % 32 == 0) ptx::store_wait();
    }
  }
};

template <int kTile, Epilogue kEpilogue, Format kFormat>
__global__ void __launch_bounds__(kSpmmTiles[kTile].threads(), 1)
    spmm_kernel(const __grid_constant__ SpmmMaps maps, const __grid_constant__ SpmmArguments args) {
  constexpr SpmmTile kShape = with_epilogue(kSpmmTiles[kTile], kEpilogue, kFormat);
  extern __shared__ uint8_t dynamic_shared[];
  // Both CTAs round the same address up, so that a stage lies at one offset in both, as multicast needs.
  const uint32_t shared = (ptx::shared_address(dynamic_shared) + 1023u) & ~1023u;
  const Ring<kShape> ring{shared};
  const uint32_t rank = ptx::cluster_rank();
  const int warpgroup = threadIdx.x / 128;
  if (threadIdx.x == 0) ring.init();
  // Without a bias the epilogues add zeros. With one the copy engine has its memory for itself.
  if (args.bias == nullptr && threadIdx.x < kShape.columns / 2) ptx::store_shared(ring.bias() + 4 * threadIdx.x, 0);
  if (is_compressed(kEpilogue) && threadIdx.x < 8) ptx::store_shared(ring.zeros() + 4 * threadIdx.x, 0);
  __syncthreads();
  ptx::cluster_sync();

  if (warpgroup == kShape.consumers) {
    ptx::registers_down<kShape.producer_registers>();
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x % 128 / 32, 0);  // which the compiler knows to be uniform
    if (warp == 0) produce<kTile, kEpilogue, kFormat>(maps, args, ring, rank);
    if constexpr (is_compressed(kEpilogue)) {
      if (warp > 0) compress_strips<kTile, kShape, kEpilogue == Epilogue::kGeluCompressed>(args, ring, rank, warp - 1);
    }
    __syncwarp();
  } else {
    ptx::registers_up<kShape.consumer_registers>();
    Consumer<kTile, kEpilogue, kFormat> consumer{maps, args,      ring,
                                                 rank, warpgroup, static_cast<int>(threadIdx.x % 128)};
    consumer.run();
  }
  // A CTA must not leave while the other one may still write to its shared memory or arrive at its barriers.
  ptx::cluster_sync();
}

template <Epilogue kEpilogue, Format kFormat>
SpmmKernel spmm_kernel_of(int tile) {
  constexpr SpmmKernel kKernels[kSpmmTileCount] = {
      spmm_kernel<0, kEpilogue, kFormat>, spmm_kernel<1, kEpilogue, kFormat>, spmm_kernel<2, kEpilogue, kFormat>};
  return kKernels[tile];
}

}  // namespace rtlynx::sm90a
