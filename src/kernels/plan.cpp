#include <fmt/format.h>

#include <cstdlib>
#include <optional>
#include <string_view>

#include "rtlynx/linear.h"

namespace rtlynx {
namespace {

/// Cycles of one core, measured with `rtlynx bench linear` (docs/kernels-cpu.md): for 16 multiplications of torch's
/// dense linear and of ours (counted sparse, half as many), for pruning and packing one element, and for 16
/// multiplications of the low-rank branch.
struct Cycles {
  double dense = 0;
  double sparse = 0;
  double pack = 0;
  double low_rank = 0;
};

/// The measured machines; nothing where nobody measured.
std::optional<Cycles> cycles_of(DType dtype, const MachineTraits& machine) {
  constexpr Cycles kAvx2F32{1.10, 1.49, 1.0, 1.2};      // Xeon, limited to AVX2
  constexpr Cycles kAvx2Bf16{8.0, 1.49, 1.5, 1.2};      // torch has no vector code for bf16 there
  constexpr Cycles kAvx512F32{0.70, 1.03, 1.2, 0.95};   // Xeon with two FMA units; a Zen 4 gains more
  constexpr Cycles kAvx512Bf16{1.11, 1.03, 1.5, 0.95};  // the same Xeon, its AMX switched off
  constexpr Cycles kPairsBf16{0.53, 0.70, 1.0, 1.05};   // Zen 4
  switch (machine.target) {
    case SimdTarget::kPortable: return std::nullopt;
    case SimdTarget::kAvx2: return dtype == DType::kF32 ? kAvx2F32 : kAvx2Bf16;
    case SimdTarget::kAvx512:
      if (dtype == DType::kF32) return kAvx512F32;
      return machine.slow_dense_bf16 ? std::optional(kAvx512Bf16) : std::nullopt;
    case SimdTarget::kAvx512Bf16:
      if (dtype == DType::kF32) return kAvx512F32;
      return machine.slow_dense_bf16 ? std::nullopt : std::optional(kPairsBf16);
  }
  return std::nullopt;
}

/// Expected time of dense over sparse. Beside the n k / 2 products there are k elements to prune and r (n + k) products
/// of the branch, which is why narrow linears and high ranks do not pay.
double expected_speedup(const Cycles& c, const LinearDesc& desc) {
  const auto n = static_cast<double>(desc.n), k = static_cast<double>(desc.k), r = static_cast<double>(desc.rank);
  const double sparse = n * k / 32 * c.sparse + k * c.pack + r * (n + k) / 16 * c.low_rank;
  return sparse > 0 ? n * k / 16 * c.dense / sparse : 0;
}

/// Below this many tokens the packed fp32 weights, larger than torch's, stream from memory for too few products.
constexpr int64_t kLeastTokens = 4;
/// What is gained less than this is lost in the noise, and dense keeps the quality.
constexpr double kLeastSpeedup = 1.05;

/// Whether oneDNN may use AMX: ONEDNN_MAX_CPU_ISA limits it.
bool is_amx_allowed() {
  const char* limit = std::getenv("ONEDNN_MAX_CPU_ISA");
  if (limit == nullptr) return true;
  const std::string_view value = limit;
  return value == "ALL" || value == "DEFAULT" || value.find("AMX") != std::string_view::npos;
}

}  // namespace

MachineTraits this_machine() {
  MachineTraits traits;
  traits.target = simd_target();
  traits.dense_bf16_on_amx = machine_has_amx_bf16() && is_amx_allowed();
  traits.slow_dense_bf16 = traits.target == SimdTarget::kAvx512 && !traits.dense_bf16_on_amx;
  traits.threads = num_threads();
  return traits;
}

LinearPlan plan_linear(const LinearDesc& desc, int64_t m, const MachineTraits& machine) {
  LinearPlan plan;
  plan.desc = desc;
  plan.m = m;
  plan.machine = machine;
  const auto dense = [&](std::string reason) {
    plan.reason = std::move(reason);
    return plan;
  };
  if (machine.target == SimdTarget::kPortable) return dense("no SIMD target: sparse runs as plain loops");
  if (desc.dtype != DType::kF32 && desc.dtype != DType::kBF16) {
    return dense(fmt::format("the cpu back end has no {}", dtype_name(desc.dtype)));
  }
  if (desc.dtype == DType::kBF16 && machine.dense_bf16_on_amx) {
    return dense("dense bf16 runs on AMX tiles, measured 4 to 7 times as fast as sparse");
  }
  const auto cycles = cycles_of(desc.dtype, machine);
  if (!cycles) return dense("not measured for this type on this SIMD target");
  if (m < kLeastTokens) return dense(fmt::format("fewer than {} tokens", kLeastTokens));
  const double speedup = expected_speedup(*cycles, desc);
  if (speedup < kLeastSpeedup) {
    return dense(fmt::format("pruning and the low-rank branch cost too much here: {:.2f}x expected", speedup));
  }
  plan.execution = Execution::kSparse;
  plan.reason = fmt::format("{:.2f}x expected from measured cycles", speedup);
  return plan;
}

std::string LinearPlan::to_string() const {
  return fmt::format("{} m={} n={} k={} {} {} {} thread{}: {}", execution_name(execution), m, desc.n, desc.k,
                     dtype_name(desc.dtype), simd_target_name(machine.target), machine.threads,
                     machine.threads == 1 ? "" : "s", reason);
}

}  // namespace rtlynx
