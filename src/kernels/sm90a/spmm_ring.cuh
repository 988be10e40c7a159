#pragma once

#include <cstdint>

#include "kernels/sm90a/ptx/mbarrier.cuh"
#include "kernels/sm90a/spmm_config.h"

/// The ring of shared-memory stages between producer and consumers of spmm.
///
/// Each stage has two barriers. `full`: one arrival (this CTA's producer, with the stage's bytes) and the bytes
/// themselves, W's half from the other CTA included. `empty`: one arrival from every consumer warpgroup of *both* CTAs,
/// because this CTA's producer also writes to the other one's stage. The n-th use of a stage (from 0) waits for the
/// full phase of parity n % 2 and, before it is filled, for the empty phase of parity (n + 1) % 2; a fresh barrier
/// counts as past parity 1, so that the first filling does not wait.
///
/// The other CTA's bytes may come in before this CTA's producer has announced the stage: the pending arrival keeps the
/// phase open meanwhile. They cannot come a whole phase early, since they wait for this CTA's consumers.
namespace rtlynx::sm90a {

/// The first block of 64 rows that a CTA has of a cluster tile.
template <int kTile>
__device__ __forceinline__ int first_row_block(const TileOrder::Position& position, uint32_t rank) {
  return (position.row_tile * kClusterSize + static_cast<int>(rank)) * kSpmmTiles[kTile].consumers;
}

template <SpmmTile kShape>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == kShape.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  /// `uses` (at most the number of stages) earlier.
  __device__ __forceinline__ RingPosition before(int uses) const {
    return uses <= stage ? RingPosition{stage - uses, parity} : RingPosition{stage - uses + kShape.stages, parity ^ 1};
  }
  __device__ __forceinline__ int previous_stage() const { return (stage == 0 ? kShape.stages : stage) - 1; }
};

template <SpmmTile kShape>
struct Ring {
  static_assert(kShape.weight_bytes() % 2048 == 0, "each half of a stage of W begins at a swizzle atom");
  static_assert(kShape.shared_bytes() <= kSharedBytesLimit);

  uint32_t base;  ///< 1024-byte aligned shared address

  __device__ __forceinline__ uint32_t weight(int stage) const { return base + stage * kShape.weight_bytes(); }
  __device__ __forceinline__ uint32_t values(int stage, int consumer) const {
    return base + kShape.values_offset() + stage * kShape.value_bytes() + consumer * kValueBytes;
  }
  __device__ __forceinline__ uint32_t staging(int warp) const {
    return base + kShape.staging_offset() + warp * kShape.staging_bytes_per_warp();
  }
  /// Bias and gate of the tile's columns.
  __device__ __forceinline__ uint32_t bias() const { return base + kShape.vectors_offset(); }
  __device__ __forceinline__ uint32_t gate() const { return bias() + kShape.vector_bytes(); }
  /// Column factors of FP8, fp32.
  __device__ __forceinline__ uint32_t factors() const { return base + kShape.factors_offset(); }
  /// 32 bytes of zeros for compressed output, which has no gate.
  __device__ __forceinline__ uint32_t zeros() const { return gate(); }
  __device__ __forceinline__ uint32_t full(int stage) const { return base + kShape.barriers_offset() + 16 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return full(stage) + 8; }
  /// A strip's staging holds what its reader waits for (the residual, or the sums to compress).
  __device__ __forceinline__ uint32_t strip_full(int strip) const { return full(kShape.stages + strip); }
  /// Its reader is done; only with compressed output.
  __device__ __forceinline__ uint32_t strip_free(int strip) const { return strip_full(strip) + 8; }

  /// Bias and gate of a tile have arrived: one phase a tile where there is any, none otherwise.
  __device__ __forceinline__ uint32_t vectors_full() const { return full(kShape.stages + kShape.strips()); }

  /// By one thread, before a barrier of the whole cluster.
  __device__ __forceinline__ void init() const {
    for (int stage = 0; stage < kShape.stages; ++stage) {
      ptx::mbarrier_init(full(stage), 1);
      ptx::mbarrier_init(empty(stage), kShape.consumers * kClusterSize);
    }
    for (int strip = 0; strip < kShape.strips(); ++strip) {
      ptx::mbarrier_init(strip_full(strip), 1);
      ptx::mbarrier_init(strip_free(strip), 1);
    }
    ptx::mbarrier_init(vectors_full(), 1);
    ptx::mbarrier_init_fence();
  }

  __device__ __forceinline__ void wait_full(const RingPosition<kShape>& position) const {
    ptx::mbarrier_wait(full(position.stage), position.parity);
  }
  __device__ __forceinline__ void wait_empty(const RingPosition<kShape>& position) const {
    ptx::mbarrier_wait(empty(position.stage), position.parity ^ 1);
  }
  /// Until the consumers have handed back this very use of the stage; before its next use is filled.
  __device__ __forceinline__ void wait_released(const RingPosition<kShape>& position) const {
    ptx::mbarrier_wait(empty(position.stage), position.parity);
  }

  /// By all lanes of a consumer warpgroup that has finished reading the stage: tells the producers of both CTAs.
  __device__ __forceinline__ void release(int stage, int lane) const {
    if (lane < kClusterSize) ptx::mbarrier_arrive_in_cluster(empty(stage), lane);
  }
};

}  // namespace rtlynx::sm90a
