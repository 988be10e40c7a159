#include "rtlynx/backend.h"

#include <fmt/format.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/cpu/simd_table.h"

namespace rtlynx {
namespace {

std::atomic<int> forced_target{-1};
std::atomic<int> thread_count{0};

/// AMD's cores issue a vdpbf16ps every cycle (Zen 4, measured), Intel's every second one.
bool has_fast_bf16_pairs() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

}  // namespace

std::string_view backend_name(Backend backend) {
  return backend == Backend::kCpu ? "cpu" : "reference";
}

std::string_view simd_target_name(SimdTarget target) {
  switch (target) {
    case SimdTarget::kPortable: return "portable";
    case SimdTarget::kAvx2: return "avx2";
    case SimdTarget::kAvx512: return "avx512";
    case SimdTarget::kAvx512Bf16: return "avx512-bf16";
  }
  return "?";
}

std::vector<SimdTarget> supported_simd_targets() {
  std::vector<SimdTarget> targets{SimdTarget::kPortable};
  for (const cpu::SimdTable* table : cpu::highway_tables()) targets.push_back(table->target);
  if (cpu::pair_table() != nullptr) targets.push_back(SimdTarget::kAvx512Bf16);
  return targets;
}

SimdTarget simd_target() {
  const int forced = forced_target.load();
  if (forced >= 0) return static_cast<SimdTarget>(forced);
  static const SimdTarget best = [] {
    const auto targets = supported_simd_targets();
    const bool skip = targets.back() == SimdTarget::kAvx512Bf16 && !has_fast_bf16_pairs();
    return skip ? targets[targets.size() - 2] : targets.back();
  }();
  return best;
}

Status force_simd_target(std::optional<SimdTarget> target) {
  if (!target) {
    forced_target = -1;
    return {};
  }
  const auto targets = supported_simd_targets();
  if (std::find(targets.begin(), targets.end(), *target) == targets.end()) {
    return {ErrorCode::kUnsupported,
            fmt::format("force_simd_target: this machine or build has no {}", simd_target_name(*target))};
  }
  forced_target = static_cast<int>(*target);
  return {};
}

bool machine_has_amx_bf16() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  return (edx & kAmxBf16) != 0 && (edx & kAmxTile) != 0;
#else
  return false;
#endif
}

Status set_num_threads(int count) {
  if (count < 0 || count > 4096) {
    return {ErrorCode::kInvalidArgument, fmt::format("set_num_threads: count must be in 0..4096 (got {})", count)};
  }
  thread_count = count;
  return {};
}

int num_threads() {
  const int count = thread_count.load();
  return count > 0 ? count : std::max(1, omp_get_max_threads());
}

namespace cpu {

const SimdTable* simd_table(SimdTarget target, DType dtype) {
  if (target == SimdTarget::kPortable) return nullptr;
  if (target == SimdTarget::kAvx512Bf16 && dtype == DType::kBF16) return pair_table();
  const SimdTarget wanted = std::min(target, SimdTarget::kAvx512);
  for (const SimdTable* table : highway_tables()) {
    if (table->target == wanted) return table;
  }
  return nullptr;
}

int64_t SimdTable::block_k() const {
  // The panel's block takes half to two thirds of the L1 data cache; with more, the packed activations and the sums
  // that stream past evict it (measured in docs/kernels-cpu.md). 32 KiB where the system does not tell.
  static const int64_t l1_bytes = std::clamp<int64_t>(sysconf(_SC_LEVEL1_DCACHE_SIZE), 32 << 10, 64 << 10);
  const int64_t row_bytes = panel_width * bytes_per_weight;
  const int64_t room = (l1_bytes >= (48 << 10) ? 32 : 24) << 10;
  return std::max<int64_t>(kStripK, room / row_bytes / kStripK * kStripK);
}

}  // namespace cpu
}  // namespace rtlynx
