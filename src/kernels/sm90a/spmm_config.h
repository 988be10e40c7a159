#pragma once

#include <cstdint>
#include <string>

#include "kernels/sm90a/host_device.h"
#include "kernels/sm90a/layout.h"
#include "rtlynx/sm90a.h"
#include "rtlynx/sm90a_fp8.h"

/// Host arithmetic of spmm: tiles, their shared memory, the order of tiles, and the choice among them.
///
/// A CTA has `consumers` warpgroups, each with 64 rows and all columns of the tile, and one producer warpgroup. Two
/// CTAs of a cluster take neighbouring rows and the same columns: each fetches half of W's tile and multicasts it to
/// both.
namespace rtlynx::sm90a {

inline constexpr int kClusterSize = 2;
inline constexpr int kSharedBytesLimit = 232448;  ///< 227 KiB, what one CTA of Hopper can have
inline constexpr int kStoreColumns = 64;          ///< columns of one store; a warp stages 16 rows of them
inline constexpr int kLoraStepColumns = 32;       ///< factors of T and L_B in one stage of the ring
inline constexpr int kMaxLoraRank = 128;
inline constexpr int kStagedChunkBytes = 16 * kStoreColumns * 2;  ///< 16 rows of 128 bytes, a swizzle atom for each 8
inline constexpr int kCompressWarps = 3;  ///< of the producer warpgroup; its first warp has the producer thread

/// What spmm makes of its sums; each has a kernel of its own.
enum class Epilogue { kDense, kGelu, kGatedResidual, kCompressed, kGeluCompressed };
inline constexpr int kEpilogueCount = 5;
RTLYNX_HOST_DEVICE constexpr bool is_compressed(Epilogue epilogue) {
  return epilogue == Epilogue::kCompressed || epilogue == Epilogue::kGeluCompressed;
}

/// What A and W are made of. In bytes a step is the same: 64 of kept values and 128 of W a row, which are 64 k in bf16
/// and 128 k in e4m3. So the tiles, and their cycles a step, are the same as well.
enum class Format { kBf16, kFp8 };
inline constexpr int kFormatCount = 2;

struct SpmmTile {
  int consumers;           ///< warpgroups with accumulators; 64 rows each
  int columns;             ///< of W's rows, so of D's columns
  int stages;              ///< of the ring in shared memory, 64 k each
  int consumer_registers;  ///< a thread, after setmaxnreg; the sum over threads must not pass 65536
  int producer_registers;
  int cycles_per_step;                 ///< of one CTA and 64 k, measured (docs/kernels-hopper.md)
  int cycles_per_tile;                 ///< beside the steps: filling the ring, scaling, writing the output
  int staged_columns = kStoreColumns;  ///< that a consumer warp has shared memory for
  int factor_bytes = 0;                ///< of FP8: the column factors of the tile

  RTLYNX_HOST_DEVICE constexpr int rows() const { return kBlockRows * consumers; }
  RTLYNX_HOST_DEVICE constexpr int threads() const { return 128 * (consumers + 1); }
  /// Ring slots: W's 64 k x columns in bf16, and the kept values of 64 k x rows.
  RTLYNX_HOST_DEVICE constexpr int weight_bytes() const { return columns * kBlockK * 2; }
  RTLYNX_HOST_DEVICE constexpr int value_bytes() const { return consumers * kValueBytes; }
  RTLYNX_HOST_DEVICE constexpr int strips() const { return 4 * consumers; }  ///< of 16 rows, one a consumer warp
  RTLYNX_HOST_DEVICE constexpr int staging_bytes_per_warp() const {
    return staged_columns / kStoreColumns * kStagedChunkBytes;
  }
  /// One row vector of the tile's columns in bf16; there are two, bias and gate.
  RTLYNX_HOST_DEVICE constexpr int vector_bytes() const { return 2 * columns; }
  /// Offsets from a 1024-byte aligned base.
  RTLYNX_HOST_DEVICE constexpr int values_offset() const { return stages * weight_bytes(); }
  RTLYNX_HOST_DEVICE constexpr int staging_offset() const { return values_offset() + stages * value_bytes(); }
  RTLYNX_HOST_DEVICE constexpr int vectors_offset() const {
    return staging_offset() + strips() * staging_bytes_per_warp();
  }
  RTLYNX_HOST_DEVICE constexpr int factors_offset() const { return vectors_offset() + 2 * vector_bytes(); }
  RTLYNX_HOST_DEVICE constexpr int barriers_offset() const { return factors_offset() + factor_bytes; }
  /// Two barriers a stage, two a strip, one for the vectors.
  RTLYNX_HOST_DEVICE constexpr int barrier_bytes() const { return 16 * (stages + strips() + 1); }
  /// With 1024 bytes to align the base: the runtime promises no more than 16.
  RTLYNX_HOST_DEVICE constexpr int shared_bytes() const { return barriers_offset() + barrier_bytes() + 1024; }
};

/// In the order of preference when the estimates are equal.
inline constexpr SpmmTile kSpmmTiles[] = {
    {2, 256, 5, 232, 40, 628, 2400},
    {3, 192, 5, 160, 32, 737, 2400},
    {2, 128, 8, 232, 40, 394, 1700},
};
inline constexpr int kSpmmTileCount = sizeof(kSpmmTiles) / sizeof(kSpmmTiles[0]);

/// The tile as the kernel with this epilogue and format has it. A residual that arrives during the main loop, and sums
/// that other warps compress during the next one, need shared memory for the whole output tile: it takes the place of a
/// stage. The compressing warps belong to the producer's warpgroup and need more registers than the producer.
RTLYNX_HOST_DEVICE constexpr SpmmTile with_epilogue(SpmmTile tile, Epilogue epilogue, Format format = Format::kBf16) {
  if (format == Format::kFp8) tile.factor_bytes = 4 * tile.columns;
  if (epilogue == Epilogue::kDense || epilogue == Epilogue::kGelu) return tile;
  tile.staged_columns = tile.columns;
  while (tile.shared_bytes() > kSharedBytesLimit) --tile.stages;
  if (is_compressed(epilogue)) {
    constexpr int kCompressRegisters = 80;
    const int all = 65536 / tile.threads() / 8 * 8 * (tile.consumers + 1);
    tile.producer_registers = kCompressRegisters;
    tile.consumer_registers = (all - kCompressRegisters) / tile.consumers / 8 * 8;
  }
  return tile;
}

/// Where in 16 staged rows of 64 columns the 16 bytes of `row` and columns 8 * chunk .. + 7 lie: the 128-byte swizzle
/// of tensor maps.
RTLYNX_HOST_DEVICE constexpr int staged_offset(int row, int chunk) {
  return row * 128 + ((chunk ^ (row & 7)) << 4);
}

/// The parts of the sums of squares (kSquaresColumns columns each) that a tile of the output accounts for: it writes
/// its sums to the first and zeros to the others, so that every tile size fills the same parts.
struct PartRange {
  int begin;
  int end;
};
RTLYNX_HOST_DEVICE constexpr PartRange parts_of_tile(int column_tile, int columns, int n) {
  const int first = column_tile * columns, past = first + columns;
  const int all = (n + kSquaresColumns - 1) / kSquaresColumns;
  return {first / kSquaresColumns, past >= n ? all : past / kSquaresColumns};
}

/// Which rows and columns the numbered tiles of a problem are. Cluster tiles (two CTA tiles high) are walked in groups
/// of `group` row tiles, down the rows first, so that the tiles that run at the same time share W's rows and X's in L2.
struct TileOrder {
  int row_tiles = 0;     ///< cluster tiles along m
  int column_tiles = 0;  ///< along n
  int group = 8;

  struct Position {
    int row_tile;
    int column_tile;
  };

  RTLYNX_HOST_DEVICE int count() const { return row_tiles * column_tiles; }
  RTLYNX_HOST_DEVICE Position at(int index) const {
    // Unsigned: the kernels divide in their main loop, and signed division takes more registers.
    const auto number = static_cast<unsigned>(index), per_group = static_cast<unsigned>(group * column_tiles);
    const unsigned first_row = number / per_group * static_cast<unsigned>(group), in_group = number % per_group;
    const unsigned left = static_cast<unsigned>(row_tiles) - first_row;
    const unsigned rows = left < static_cast<unsigned>(group) ? left : static_cast<unsigned>(group);
    return {static_cast<int>(first_row + in_group % rows), static_cast<int>(in_group / rows)};
  }
};

/// What will be launched for one shape. Plain data.
struct SpmmPlan {
  int tile = 0;  ///< index into kSpmmTiles
  TileOrder order;
  int clusters = 0;  ///< launched; each walks tiles clusters apart
  int waves = 0;     ///< tiles of the busiest cluster
  int64_t m = 0, n = 0, k = 0, rank = 0;
  int64_t estimated_cycles = 0;

  /// "128x256 m=4096 n=4096 k=3072 r=64: 256 cluster tiles on 66 clusters, 4 waves, 134 k cycles"
  std::string to_string() const;
};

/// The plan with tile `tile`, or with the one of the fewest estimated cycles for -1. `clusters[i]` is how many clusters
/// of tile i the device holds at once. A pure function; kInvalidArgument for a tile that does not exist, kUnsupported
/// when no tile fits the device.
Result<SpmmPlan> plan_spmm(int64_t m, int64_t n, int64_t k, int64_t rank, const int (&clusters)[kSpmmTileCount],
                           int tile = -1);

/// Checks everything that spmm documents. Pure; the device is not asked.
Status check_spmm(const CompressedView& a, const MatrixView& w, const MutableMatrixView& d, const SpmmOptions& options);

/// The same for spmm_fp8.
Status check_spmm_fp8(const CompressedFp8View& a, const Fp8Weight& w, const MutableMatrixView& d,
                      const SpmmOptions& options);

/// The same for spmm_compress.
Status check_spmm_compress(const CompressedView& a, const MatrixView& w, const CompressedSlice& out,
                           const SpmmOptions& options);

/// The kernel that a call needs; for arguments that passed their check.
Epilogue epilogue_of(const SpmmOptions& options, bool compressed);

}  // namespace rtlynx::sm90a
