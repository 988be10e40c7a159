#include <fmt/format.h>

#include "rtlynx/linear.h"

namespace rtlynx {

std::string_view execution_name(Execution execution) {
  return execution == Execution::kSparse ? "sparse" : "dense";
}

MachineTraits this_machine() {
  MachineTraits traits;
  traits.target = simd_target();
  traits.threads = num_threads();
  return traits;
}

LinearPlan plan_linear(const LinearDesc& desc, int64_t m, const MachineTraits& machine) {
  LinearPlan plan;
  plan.desc = desc;
  plan.m = m;
  plan.machine = machine;
  return plan;
}

std::string LinearPlan::to_string() const {
  return fmt::format("{} m={} n={} k={} {} {} {} thread{}: {}", execution_name(execution), m, desc.n, desc.k,
                     dtype_name(desc.dtype), simd_target_name(machine.target), machine.threads,
                     machine.threads == 1 ? "" : "s", reason);
}

}  // namespace rtlynx
