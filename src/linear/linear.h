#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace rtlynx {

class Weights;

/// The paper's ablation, for one linear. kSaNcLora needs an adapter's L_A, L_B.
enum class LinearMode { kDense, kSa, kSaNc, kSaNcLora };

/// "dense", "sa", "sa-nc", "sa-nc-lora".
std::string_view linear_mode_name(LinearMode mode);
/// The reverse; throws Error(kInvalidArgument) listing the names.
LinearMode linear_mode_from_name(std::string_view name);

/// Whether the plan may choose dense where sparse does not pay on this machine.
enum class PlanPolicy {
  kAuto,     ///< sparse where measured rules say that it pays, else dense
  kSparse,   ///< always sparse (studies of quality; the same pictures on every machine)
  kRequire,  ///< sparse, and Error(kUnsupported) where the rules say that it does not pay
};

/// What a linear would do for m tokens, and why, in one sentence.
struct LinearDecision {
  bool sparse = false;
  std::string why;
};

/// One linear of a transformer block: y = x W^T + b, or its 2:4 activation-sparse form. `name` is the checkpoint's
/// module path ("transformer_blocks.0.attn.to_q"). Weights are [n, k] as stored.
class Linear {
 public:
  /// Takes `<name>.weight` [n, k] and, if has_bias, `<name>.bias` [n].
  Linear(Weights& weights, std::string name, int64_t k, int64_t n, bool has_bias);
  ~Linear();
  Linear(Linear&&) noexcept;
  Linear& operator=(Linear&&) noexcept;

  /// x [..., k] in the weight's dtype and device; returns [..., n]. Deterministic. One call at a time per object.
  /// The first sparse call on a CPU packs the weight for the kernels: memory of one more copy, until the mode is dense.
  /// On a Hopper GPU the kernels read bf16 weights as they lie; decide() says where torch's operators run instead.
  at::Tensor operator()(const at::Tensor& x) const;

  const std::string& name() const;
  const at::Tensor& weight() const;
  /// Undefined where there is none.
  const at::Tensor& bias() const;
  int64_t k() const;
  int64_t n() const;

  void set_mode(LinearMode mode, PlanPolicy policy);
  LinearMode mode() const;
  /// The plan's verdict for m tokens under the mode and policy that are set.
  LinearDecision decide(int64_t m) const;
  /// lora_a [k, r], lora_b [r, n], kept in the weight's dtype and device; undefined tensors remove the branch.
  void set_lora(at::Tensor lora_a, at::Tensor lora_b);
  /// Replaces the weight, for comparisons such as 2:4 weights (same shape, dtype and device).
  void set_weight(at::Tensor weight);

  /// Called with every input before the product, on the caller's thread; empty removes it. For calibration.
  using Observer = std::function<void(const Linear&, const at::Tensor& x)>;
  void set_observer(Observer observer);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace rtlynx
