#include "linear/linear.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "linear/cpu_kernels.h"
#include "linear/cuda_kernels.h"
#include "linear/sparse_ops.h"
#include "linear/weights.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

constexpr std::array<std::pair<LinearMode, std::string_view>, 4> kModes = {{{LinearMode::kDense, "dense"},
                                                                            {LinearMode::kSa, "sa"},
                                                                            {LinearMode::kSaNc, "sa-nc"},
                                                                            {LinearMode::kSaNcLora, "sa-nc-lora"}}};

std::string describe(const at::Tensor& t) {
  return fmt::format("[{}] {} on {}", fmt::join(t.sizes(), ", "), at::toString(t.scalar_type()), t.device().str());
}

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: {}", name, what));
}

}  // namespace

std::string_view linear_mode_name(LinearMode mode) {
  for (const auto& [value, name] : kModes) {
    if (value == mode) return name;
  }
  return "unknown";
}

LinearMode linear_mode_from_name(std::string_view name) {
  for (const auto& [value, known] : kModes) {
    if (known == name) return value;
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("mode '{}': expected dense, sa, sa-nc or sa-nc-lora", name));
}

struct Linear::State {
  std::string name;
  at::Tensor weight;
  at::Tensor bias;
  LoraFactors lora;
  LinearMode mode = LinearMode::kDense;
  PlanPolicy policy = PlanPolicy::kAuto;
  Observer observer;
  /// Made by the first sparse call; dropped by whatever changes what it holds.
  mutable std::optional<SparseLinear> packed;
  mutable std::optional<CudaLinear> on_cuda;

  void check_input(const at::Tensor& x) const {
    if (x.dim() == 0 || x.size(-1) != weight.size(1) || x.scalar_type() != weight.scalar_type() ||
        x.device() != weight.device()) {
      refuse(name, fmt::format("the input is {}, expected [..., {}] like the weight {}", describe(x), weight.size(1),
                               describe(weight)));
    }
  }

  void forget_packed() const {
    packed.reset();
    on_cuda.reset();
  }
  /// Of the low-rank branch that the mode wants.
  int64_t rank() const { return mode == LinearMode::kSaNcLora && lora.lora_a.defined() ? lora.lora_a.size(1) : 0; }
  LinearDecision decide(int64_t m) const;
  LinearDecision decide_forced() const;
  at::Tensor sparse(const at::Tensor& x) const;
};

LinearDecision Linear::State::decide(int64_t m) const {
  if (mode == LinearMode::kDense) {
    return {false, "the mode is dense"};
  }
  if (policy == PlanPolicy::kSparse) {
    return decide_forced();
  }
  if (weight.is_cuda()) {
    return plan_on_cuda(weight, rank(), m);
  }
  if (!has_cpu_kernels(weight)) {
    return {false, fmt::format("this build has no sparse kernels for {} on {}", at::toString(weight.scalar_type()),
                               weight.device().str())};
  }
  const LinearPlan plan = plan_linear({weight.size(0), weight.size(1), kernel_dtype(weight), rank()}, m);
  return {plan.execution == Execution::kSparse, plan.reason};
}

LinearDecision Linear::State::decide_forced() const {
  const std::string asked = "sparse was asked for, whether it pays or not";
  if (has_cpu_kernels(weight)) {
    return {true, asked};
  }
  const std::string refusal = cuda_refusal(weight, rank());
  return {true, refusal.empty() ? asked : fmt::format("{}; by torch's operators: {}", asked, refusal)};
}

at::Tensor Linear::State::sparse(const at::Tensor& x) const {
  if (weight.is_cuda() && cuda_refusal(weight, rank()).empty()) {
    if (!on_cuda) {
      on_cuda.emplace(prepare_cuda_linear(weight, bias, lora));
    }
    return run_cuda_linear(*on_cuda, x, mode);
  }
  if (!has_cpu_kernels(weight)) {
    const bool branch = mode == LinearMode::kSaNcLora;
    return sparse_linear_by_torch(x, weight, bias, branch ? std::optional(lora) : std::nullopt, mode);
  }
  if (!packed) {
    packed.emplace(pack_sparse_linear(weight, bias, lora));
  }
  return run_sparse_linear(*packed, x, mode);
}

Linear::Linear(Weights& weights, std::string name, int64_t k, int64_t n, bool has_bias)
    : state_(std::make_unique<State>()) {
  state_->weight = weights.take(name + ".weight", {n, k});
  if (has_bias) {
    state_->bias = weights.take(name + ".bias", {n});
  }
  state_->name = std::move(name);
}

Linear::~Linear() = default;
Linear::Linear(Linear&&) noexcept = default;
Linear& Linear::operator=(Linear&&) noexcept = default;

at::Tensor Linear::operator()(const at::Tensor& x) const {
  const State& state = *state_;
  state.check_input(x);
  if (state.observer) {
    state.observer(*this, x);
  }
  if (state.mode == LinearMode::kDense) {
    return at::linear(x, state.weight, state.bias);
  }
  if (state.mode == LinearMode::kSaNcLora && !state.lora.lora_a.defined()) {
    refuse(state.name, "mode sa-nc-lora needs an adapter's factors, none are set");
  }
  const int64_t m = x.numel() / std::max<int64_t>(x.size(-1), 1);
  const LinearDecision decision = state.decide(m);
  if (!decision.sparse && state.policy == PlanPolicy::kRequire) {
    throw Error(ErrorCode::kUnsupported, fmt::format("{}: sparse is required for m={} n={} k={}, but {}", state.name, m,
                                                     n(), k(), decision.why));
  }
  return decision.sparse && m > 0 ? state.sparse(x) : at::linear(x, state.weight, state.bias);
}

const std::string& Linear::name() const {
  return state_->name;
}
const at::Tensor& Linear::weight() const {
  return state_->weight;
}
const at::Tensor& Linear::bias() const {
  return state_->bias;
}
int64_t Linear::k() const {
  return state_->weight.size(1);
}
int64_t Linear::n() const {
  return state_->weight.size(0);
}
LinearMode Linear::mode() const {
  return state_->mode;
}
LinearDecision Linear::decide(int64_t m) const {
  return state_->decide(m);
}

void Linear::set_mode(LinearMode mode, PlanPolicy policy) {
  state_->mode = mode;
  state_->policy = policy;
  if (mode == LinearMode::kDense) {
    state_->forget_packed();
  }
}

void Linear::set_lora(at::Tensor lora_a, at::Tensor lora_b) {
  State& state = *state_;
  if (lora_a.defined() != lora_b.defined()) {
    refuse(state.name, "one LoRA factor is given without the other");
  }
  if (lora_a.defined()) {
    const bool fits = lora_a.dim() == 2 && lora_b.dim() == 2 && lora_a.size(0) == k() && lora_b.size(1) == n() &&
                      lora_a.size(1) == lora_b.size(0);
    if (!fits) {
      refuse(state.name, fmt::format("LoRA factors {} and {} do not fit, expected [{}, r] and [r, {}]",
                                     describe(lora_a), describe(lora_b), k(), n()));
    }
    lora_a = lora_a.to(state.weight.options()).contiguous();
    lora_b = lora_b.to(state.weight.options()).contiguous();
  }
  state.lora = {std::move(lora_a), std::move(lora_b)};
  state.forget_packed();
}

void Linear::set_weight(at::Tensor weight) {
  State& state = *state_;
  if (weight.sizes() != state.weight.sizes() || weight.scalar_type() != state.weight.scalar_type() ||
      weight.device() != state.weight.device()) {
    refuse(state.name, fmt::format("the new weight is {}, expected {}", describe(weight), describe(state.weight)));
  }
  state.weight = std::move(weight);
  state.forget_packed();
}

void Linear::set_observer(Observer observer) {
  state_->observer = std::move(observer);
}

}  // namespace rtlynx
