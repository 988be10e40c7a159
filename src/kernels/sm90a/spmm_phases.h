#pragma once

#include <cstdint>

#include "kernels/sm90a/host_device.h"

/// Where spmm's cycles go, counted in the kernel: a clock that is right whatever the GPU's clock does meanwhile. Only
/// in builds with RTLYNX_SM90A_PHASES; in others the counters are empty and cost nothing.
namespace rtlynx::sm90a {

/// The main loop of a tile; scales and low-rank product; writing or handing on the sums.
enum class SpmmPhase { kMultiply, kLowRank, kFinish, kCount };
inline constexpr int kSpmmPhases = static_cast<int>(SpmmPhase::kCount);
inline constexpr int kPhaseCtas = 256, kPhaseConsumers = 3;

/// Cycles of each phase of one consumer warpgroup, then its tiles; launches add to them, modulo 2^32.
struct SpmmPhaseCycles {
  uint32_t counters[kSpmmPhases + 1];
};
using SpmmPhaseLog = SpmmPhaseCycles[kPhaseCtas][kPhaseConsumers];

#ifdef RTLYNX_SM90A_PHASES
/// Device memory that every launch of spmm counts in; null without memory.
SpmmPhaseLog* spmm_phase_log();
#endif

#ifdef __CUDACC__
/// A consumer warpgroup's counters, by all its threads; the first one counts. No register lives between two laps: a lap
/// adds the clock to the phase that ends and takes it from the one that begins.
class PhaseClock {
 public:
#ifdef RTLYNX_SM90A_PHASES
  __device__ __forceinline__ explicit PhaseClock(SpmmPhaseLog* log) : log_(log) {
    add(0, 0u - clock_now());
  }
  __device__ __forceinline__ void lap(SpmmPhase phase) const {
    const uint32_t now = clock_now();
    add(static_cast<int>(phase), now);
    add((static_cast<int>(phase) + 1) % kSpmmPhases, 0u - now);
    if (phase == SpmmPhase::kFinish) add(kSpmmPhases, 1);
  }
  __device__ __forceinline__ void stop() const {
    add(0, clock_now());
  }

 private:
  __device__ __forceinline__ static uint32_t clock_now() {
    uint32_t now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now) : : "memory");
    return now;
  }
  /// `counter` kSpmmPhases is `tiles`.
  __device__ __forceinline__ void add(int counter, uint32_t value) const {
    if (log_ == nullptr || threadIdx.x % 128 != 0 || blockIdx.x >= kPhaseCtas) return;
    atomicAdd(&(*log_)[blockIdx.x][threadIdx.x / 128].counters[counter], value);
  }
  SpmmPhaseLog* log_;
#else
  __device__ __forceinline__ explicit PhaseClock(SpmmPhaseLog*) {}
  __device__ __forceinline__ void lap(SpmmPhase) const {}
  __device__ __forceinline__ void stop() const {}
#endif
};
#endif

}  // namespace rtlynx::sm90a
