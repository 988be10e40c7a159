#include "bench_phases.h"

#ifdef RTLYNX_SM90A_PHASES
#include <algorithm>
#include <cstdio>
#include <vector>

#include "device_memory.h"
#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/spmm_phases.h"
#endif

namespace rtlynx::check {

#ifdef RTLYNX_SM90A_PHASES
void print_phases(const std::string& name, int64_t k, const std::function<void()>& call) {
  constexpr int kRuns = 3;
  sm90a::SpmmPhaseLog* log = sm90a::spmm_phase_log();
  require(cudaMemset(log, 0, sizeof(*log)), "clear the phases");
  for (int i = 0; i < kRuns; ++i) call();
  std::vector<sm90a::SpmmPhaseCycles> counted(sizeof(*log) / sizeof(sm90a::SpmmPhaseCycles));
  require(cudaMemcpy(counted.data(), log, sizeof(*log), cudaMemcpyDeviceToHost), "read the phases");
  double cycles[sm90a::kSpmmPhases] = {}, tiles = 0, longest = 0;
  for (const sm90a::SpmmPhaseCycles& consumer : counted) {
    double all = 0;
    for (int phase = 0; phase < sm90a::kSpmmPhases; ++phase) {
      cycles[phase] += consumer.counters[phase];
      all += consumer.counters[phase];
    }
    tiles += consumer.counters[sm90a::kSpmmPhases];
    longest = std::max(longest, all / kRuns);
  }
  const double steps = tiles * static_cast<double>(k) / sm90a::kBlockK;
  std::printf("   %-28s cycles: %6.1f a step, scale + low rank %5.0f and finish %5.0f a tile, longest %8.0f\n",
              name.c_str(), cycles[0] / steps, cycles[1] / tiles, cycles[2] / tiles, longest);
}
#else
void print_phases(const std::string&, int64_t, const std::function<void()>&) {}
#endif

}  // namespace rtlynx::check
