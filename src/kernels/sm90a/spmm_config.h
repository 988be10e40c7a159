#pragma once

#include <cstdint>
#include <string>

#include "kernels/sm90a/host_device.h"
#include "kernels/sm90a/layout.h"
#include "rtlynx/sm90a.h"

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

struct SpmmTile {
  int consumers;           ///< warpgroups with accumulators; 64 rows each
  int columns;             ///< of W's rows, so of D's columns
  int stages;              ///< of the ring in shared memory, 64 k each
  int consumer_registers;  ///< a thread, after setmaxnreg; the sum over threads must not pass 65536
  int producer_registers;
  int cycles_per_step;  ///< of one CTA and 64 k, measured (reference: docs/kernels-hopper.md); 128x128 is an estimate
  int cycles_per_tile;  ///< beside the steps: filling the ring, writing the output

  RTLYNX_HOST_DEVICE constexpr int rows() const { return kBlockRows * consumers; }
  RTLYNX_HOST_DEVICE constexpr int threads() const { return 128 * (consumers + 1); }
  /// Ring slots: W's 64 k x columns in bf16, and the kept values of 64 k x rows.
  RTLYNX_HOST_DEVICE constexpr int weight_bytes() const { return columns * kBlockK * 2; }
  RTLYNX_HOST_DEVICE constexpr int value_bytes() const { return consumers * kValueBytes; }
  RTLYNX_HOST_DEVICE constexpr int staging_bytes_per_warp() const { return 16 * kStoreColumns * 2; }
  /// Offsets from a 1024-byte aligned base.
  RTLYNX_HOST_DEVICE constexpr int values_offset() const { return stages * weight_bytes(); }
  RTLYNX_HOST_DEVICE constexpr int staging_offset() const { return values_offset() + stages * value_bytes(); }
  RTLYNX_HOST_DEVICE constexpr int barriers_offset() const {
    return staging_offset() + 4 * consumers * staging_bytes_per_warp();
  }
  /// With 1024 bytes to align the base: the runtime promises no more than 16.
  RTLYNX_HOST_DEVICE constexpr int shared_bytes() const { return barriers_offset() + 16 * stages + 1024; }
};

/// In the order of preference when the estimates are equal.
inline constexpr SpmmTile kSpmmTiles[] = {
    {2, 256, 5, 232, 40, 628, 2400},
    {3, 192, 5, 160, 32, 737, 2400},
    {2, 128, 8, 232, 40, 345, 1400},
};
inline constexpr int kSpmmTileCount = sizeof(kSpmmTiles) / sizeof(kSpmmTiles[0]);

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
    const int per_group = group * column_tiles;
    const int first_row = index / per_group * group;
    const int rows = row_tiles - first_row < group ? row_tiles - first_row : group;
    const int in_group = index % per_group;
    return {first_row + in_group % rows, in_group / rows};
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

}  // namespace rtlynx::sm90a
