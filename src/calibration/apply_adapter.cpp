#include "calibration/apply_adapter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <vector>

#include "calibration/units.h"
#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

constexpr std::string_view kSkipMode = "sa-nc-lora-sl";

}  // namespace

const std::vector<std::string>& model_mode_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const LinearMode mode : {LinearMode::kDense, LinearMode::kSa, LinearMode::kSaNc, LinearMode::kSaNcLora}) {
      all.emplace_back(linear_mode_name(mode));
    }
    all.emplace_back(kSkipMode);
    return all;
  }();
  return names;
}

ModelMode model_mode_from_name(std::string_view name) {
  if (name == kSkipMode) return {LinearMode::kSaNcLora, true};
  for (const std::string& known : model_mode_names()) {
    if (known == name) return linear_mode_from_name(name);
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("mode '{}': expected one of {}", name, fmt::join(model_mode_names(), ", ")));
}

bool has_chosen_skips(const io::Adapter& adapter) {
  return adapter.calibration.contains("sparse_flops");
}

void set_modes(std::span<Linear* const> linears, LinearMode mode, PlanPolicy policy) {
  for (Linear* linear : linears) {
    linear->set_lora({}, {});
    linear->set_mode(mode, policy);
  }
}

void apply_adapter(std::span<Linear* const> linears, const io::Adapter& adapter, const std::string& origin,
                   std::string_view model_class, std::string_view fingerprint, ModelMode mode, PlanPolicy policy) {
  std::vector<io::LinearShape> shapes;
  std::map<std::string_view, Linear*> by_name;
  for (Linear* linear : linears) {
    shapes.push_back({linear->name(), linear->k(), linear->n()});
    by_name.emplace(linear->name(), linear);
  }
  io::check_adapter(adapter, origin, model_class, fingerprint, shapes);
  if (mode.skips_layers && !has_chosen_skips(adapter)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: mode {} needs the choice of layers to leave dense; 'rtlynx skip' makes it", origin,
                            kSkipMode));
  }
  set_modes(linears, LinearMode::kDense, policy);
  for (const io::AdapterLinear& decided : adapter.linears) {
    if (!decided.has_factors() || (mode.skips_layers && !decided.sparse)) continue;
    Linear& linear = *by_name.at(decided.name);
    if (mode.linear == LinearMode::kSaNcLora) {
      linear.set_lora(bf16_tensor(decided.lora_a, decided.k, adapter.rank),
                      bf16_tensor(decided.lora_b, adapter.rank, decided.n));
    }
    linear.set_mode(mode.linear, policy);
  }
}

}  // namespace rtlynx::calibration
