#include "calibration/apply_adapter.h"

#include <map>
#include <vector>

#include "calibration/units.h"

namespace rtlynx::calibration {

void set_modes(std::span<Linear* const> linears, LinearMode mode, PlanPolicy policy) {
  for (Linear* linear : linears) {
    linear->set_lora({}, {});
    linear->set_mode(mode, policy);
  }
}

void apply_adapter(std::span<Linear* const> linears, const io::Adapter& adapter, const std::string& origin,
                   std::string_view model_class, std::string_view fingerprint, LinearMode mode, PlanPolicy policy) {
  std::vector<io::LinearShape> shapes;
  std::map<std::string_view, Linear*> by_name;
  for (Linear* linear : linears) {
    shapes.push_back({linear->name(), linear->k(), linear->n()});
    by_name.emplace(linear->name(), linear);
  }
  io::check_adapter(adapter, origin, model_class, fingerprint, shapes);
  set_modes(linears, LinearMode::kDense, policy);
  for (const io::AdapterLinear& decided : adapter.linears) {
    if (!decided.sparse) continue;
    Linear& linear = *by_name.at(decided.name);
    if (mode == LinearMode::kSaNcLora) {
      linear.set_lora(bf16_tensor(decided.lora_a, decided.k, adapter.rank),
                      bf16_tensor(decided.lora_b, adapter.rank, decided.n));
    }
    linear.set_mode(mode, policy);
  }
}

}  // namespace rtlynx::calibration
