#pragma once

#include <cstdint>

#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/spmm_epilogue.cuh"
#include "kernels/sm90a/spmm_ring.cuh"

/// Compressed output of spmm. Pruning a 128x256 tile takes some 11,000 warp instructions, with GELU 18,000: done by the
/// consumers, the tensor cores would stand still for 3,000 to 4,500 cycles a tile. So the consumers only leave their
/// sums in shared memory, in bf16, and go on with the next tile, while three warps of the producer's warpgroup, idle
/// otherwise, compress them. They take some 10,000 cycles for a tile; the main loop of k = 3072 takes 30,000.
///
/// A strip is what one consumer warp has: 16 rows and the tile's columns. Its two barriers take turns: `strip_full`
/// once a tile when the sums are there, `strip_free` when they have been read.
namespace rtlynx::sm90a {

/// 64 columns of a strip: lane l takes columns 16 (l % 4) .. + 15 of rows l / 4 and l / 4 + 8, as in prune_compress.
template <bool kGelu>
__device__ __forceinline__ void compress_chunk(uint32_t staged, const bool (&inside)[2], uint8_t* block,
                                               int row_in_block, SquareSums (&sums)[2]) {
  const int lane = static_cast<int>(threadIdx.x % 32), quarter = lane % 4;
  uint32_t metadata = 0;
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    const uint4 first = ptx::load_shared(staged + staged_offset(row, 2 * quarter));
    const uint4 second = ptx::load_shared(staged + staged_offset(row, 2 * quarter + 1));
    uint32_t words[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
    RTLYNX_UNROLL
    for (int i = 0; i < 8; ++i) {
      if constexpr (kGelu) words[i] = gelu_pair(words[i]);
      if (!inside[half]) words[i] = 0;
    }
    const uint32_t bits = compress_quarter(words, block + value_offset(row_in_block + 8 * half, quarter), sums[half]);
    metadata |= bits << (16 * half);
  }
  *reinterpret_cast<uint32_t*>(block + metadata_offset(row_in_block, quarter)) = metadata;
}

/// The strip whose first row is `row`. Row blocks beyond the last one do not exist; rows beyond m in it become zeros.
template <SpmmTile kShape, bool kGelu>
__device__ __forceinline__ void compress_strip(const SpmmArguments& args, uint32_t staging, int row, int column_tile) {
  if (row >= args.row_blocks * kBlockRows) return;
  const int lane = static_cast<int>(threadIdx.x % 32), row_of_lane = row + lane / 4;
  const bool inside[2] = {row_of_lane < args.m, row_of_lane + 8 < args.m};
  const int column = column_tile * kShape.columns;
  uint8_t* block = args.out_blocks + block_offset(row / kBlockRows, column / kBlockK, args.out_k_blocks);
  SquareSums sums[2];
  for (int chunk = 0; chunk < kShape.columns / kStoreColumns; ++chunk) {
    if (column + chunk * kStoreColumns >= args.n) break;
    compress_chunk<kGelu>(staging + chunk * kStagedChunkBytes, inside, block + chunk * kBlockBytes,
                          row_of_lane % kBlockRows, sums);
  }
  const PartRange parts = parts_of_tile(column_tile, kShape.columns, args.n);
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float2 total = make_float2(add_quad(sums[half].all), add_quad(sums[half].kept));
    if (lane % 4 != 0 || !inside[half]) continue;
    for (int part = parts.begin; part < parts.end; ++part) {
      args.squares[static_cast<int64_t>(part) * args.m + row_of_lane + 8 * half] =
          part == parts.begin ? total : make_float2(0.0f, 0.0f);
    }
  }
}

/// Warp `helper` (0..kCompressWarps - 1) of the compressing ones: its strips of all tiles of the CTA. Who takes which
/// strip rotates from tile to tile, since the strips do not divide evenly.
template <int kTile, SpmmTile kShape, bool kGelu>
__device__ __forceinline__ void compress_strips(const SpmmArguments& args, const Ring<kShape>& ring, uint32_t rank,
                                                int helper) {
  uint32_t parity = 0;
  for (int index = blockIdx.x / kClusterSize; index < args.order.count(); index += gridDim.x / kClusterSize) {
    const TileOrder::Position tile = args.order.at(index);
    const int first_row = first_row_block<kTile>(tile, rank) * kBlockRows;
    for (int strip = helper; strip < kShape.strips(); strip += kCompressWarps) {
      ptx::mbarrier_wait(ring.strip_full(strip), parity);
      compress_strip<kShape, kGelu>(args, ring.staging(strip), first_row + 16 * strip, tile.column_tile);
      __syncwarp();
      if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ring.strip_free(strip));
    }
    parity ^= 1;
    helper = helper + 1 == kCompressWarps ? 0 : helper + 1;
  }
}

}  // namespace rtlynx::sm90a
