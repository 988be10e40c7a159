#pragma once

#include <cstdint>

#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/spmm_epilogue.cuh"
#include "kernels/sm90a/spmm_ring.cuh"

/// Compressed output of spmm. Pruning a 128x256 tile takes some 9,000 warp instructions, with GELU 18,000: done by the
/// consumers, the tensor cores would stand still for 3,000 to 4,500 cycles a tile. So the consumers only leave their
/// sums in shared memory, in bf16, and go on with the next tile, while three warps of the producer's warpgroup, idle
/// otherwise, compress them. Only after a CTA's last tile, when they have nothing else to do, they do it themselves:
/// eight warps are sooner done than three.
///
/// A strip is what one consumer warp has: 16 rows and the tile's columns. Its two barriers take turns: `strip_full`
/// once a tile when the sums are there, `strip_free` when they have been read.
///
/// A warp that compresses is alone on its scheduler but for the consumers' few instructions, so what counts is not the
/// number of instructions but for how long each waits: a load from shared memory takes some 300 cycles beside the
/// tensor cores' reads, so the next chunk is loaded while this one is worked on.
namespace rtlynx::sm90a {

/// Where a lane reads and writes: columns 16 (l % 4) .. + 15 of rows l / 4 and l / 4 + 8 of a strip, as in
/// prune_compress. All members move on by a constant from chunk to chunk.
struct CompressLane {
  uint32_t staged[2];  ///< the first 16 bytes of each row; the other 16 lie at this address ^ 16
  uint32_t step[2];    ///< from chunk to chunk; 0 for a row beyond m, whose `staged` are zeros
  uint8_t* values;     ///< of the upper row; those of the other one are 8 rows further
  uint8_t* metadata;
};
inline constexpr int kLowerRowOffset = value_offset(8, 0) - value_offset(0, 0);
static_assert(value_offset(11, 2) - value_offset(3, 2) == kLowerRowOffset,
              "eight rows further the swizzle is the same");
static_assert(staged_offset(11, 4) - staged_offset(3, 4) == staged_offset(8, 0));
static_assert(staged_offset(5, 7) == (staged_offset(5, 6) ^ 16));

/// `zeros`: 32 bytes of shared memory, 32-byte aligned.
__device__ __forceinline__ CompressLane compress_lane(const SpmmArguments& args, uint32_t staging, uint32_t zeros,
                                                      int row, int column) {
  const int lane = static_cast<int>(threadIdx.x % 32), quarter = lane % 4, row_in_block = row % kBlockRows + lane / 4;
  uint8_t* block = args.out_blocks + block_offset(row / kBlockRows, column / kBlockK, args.out_k_blocks);
  CompressLane of_lane{
      {}, {}, block + value_offset(row_in_block, quarter), block + metadata_offset(row_in_block, quarter)};
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const bool inside = row + lane / 4 + 8 * half < args.m;
    of_lane.staged[half] = inside ? staging + staged_offset(lane / 4 + 8 * half, 2 * quarter) : zeros;
    of_lane.step[half] = inside ? kStagedChunkBytes : 0;
  }
  return of_lane;
}

/// 16 elements of each of the lane's rows, and the step to those of the next chunk where there is one.
using LoadedRows = uint4[2][2];
__device__ __forceinline__ void load_row(CompressLane& of_lane, int half, bool more, LoadedRows& loaded) {
  loaded[half][0] = ptx::load_shared(of_lane.staged[half]);
  loaded[half][1] = ptx::load_shared(of_lane.staged[half] ^ 16);
  if (more) of_lane.staged[half] += of_lane.step[half];
}

/// 64 columns of a strip, loaded before; loads the next ones, and at the end the last ones again.
template <bool kGelu>
__device__ __forceinline__ void compress_chunk(CompressLane& of_lane, bool more, LoadedRows& loaded,
                                               SquareSums (&sums)[2]) {
  uint32_t metadata = 0;
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const uint4 &first = loaded[half][0], &second = loaded[half][1];
    uint32_t words[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
    load_row(of_lane, half, more, loaded);
    if constexpr (kGelu) gelu_pairs(words);
    metadata |= compress_quarter(words, of_lane.values + half * kLowerRowOffset, sums[half]) << (16 * half);
  }
  *reinterpret_cast<uint32_t*>(of_lane.metadata) = metadata;
  of_lane.values += kBlockBytes;
  of_lane.metadata += kBlockBytes;
}

/// The strip whose first row is `row`. Row blocks beyond the last one do not exist; rows beyond m in it become zeros.
template <SpmmTile kShape, bool kGelu>
__device__ __forceinline__ void compress_strip(const SpmmArguments& args, uint32_t staging, uint32_t zeros, int row,
                                               int column) {
  if (row >= args.row_blocks * kBlockRows) return;
  CompressLane of_lane = compress_lane(args, staging, zeros, row, column);
  const int columns = args.n - column < kShape.columns ? args.n - column : kShape.columns;
  SquareSums sums[2];
  LoadedRows loaded;
  const int chunks = columns / kStoreColumns;
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) load_row(of_lane, half, chunks > 1, loaded);
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) compress_chunk<kGelu>(of_lane, chunk + 2 < chunks, loaded, sums);

  const int lane = static_cast<int>(threadIdx.x % 32), row_of_lane = row + lane / 4;
  const PartRange parts = parts_of_tile(column / kShape.columns, kShape.columns, args.n);
  RTLYNX_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float2 total = make_float2(add_quad(sums[half].all), add_quad(sums[half].kept));
    if (lane % 4 != 0 || row_of_lane + 8 * half >= args.m) continue;
#pragma unroll 1
    for (int part = parts.begin; part < parts.end; ++part) {
      args.squares[static_cast<int64_t>(part) * args.m + row_of_lane + 8 * half] =
          part == parts.begin ? total : make_float2(0.0f, 0.0f);
    }
  }
}

/// Warp `helper` (0..kCompressWarps - 1) of the compressing ones: its strips of all tiles of the CTA but the last. Who
/// takes which strip rotates from tile to tile, since the strips do not divide evenly.
template <int kTile, SpmmTile kShape, bool kGelu>
__device__ __forceinline__ void compress_strips(const SpmmArguments& args, const Ring<kShape>& ring, uint32_t rank,
                                                int helper) {
  const int stride = gridDim.x / kClusterSize;
  uint32_t parity = 0;
#pragma unroll 1
  for (int index = blockIdx.x / kClusterSize; index + stride < args.order.count(); index += stride) {
    const TileOrder::Position tile = args.order.at(index);
    const int first_row = first_row_block<kTile>(tile, rank) * kBlockRows;
#pragma unroll 1
    for (int strip = helper; strip < kShape.strips(); strip += kCompressWarps) {
      ptx::mbarrier_wait(ring.strip_full(strip), parity);
      compress_strip<kShape, kGelu>(args, ring.staging(strip), ring.zeros(), first_row + 16 * strip,
                                    tile.column_tile * kShape.columns);
      __syncwarp();
      if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ring.strip_free(strip));
    }
    parity ^= 1;
    helper = helper + 1 == kCompressWarps ? 0 : helper + 1;
  }
}

}  // namespace rtlynx::sm90a
