#pragma once

#include <ATen/ATen.h>

#include <string>

#include "linear/weights.h"

namespace rtlynx::models {

/// How an RMS norm rounds where it computes in bf16. In fp32 the two agree but for the last bit.
enum class RmsRounding {
  kOnce,   ///< torch.nn.RMSNorm: fp32 inside, weight included, one rounding (FLUX)
  kTwice,  ///< diffusers' RMSNorm: x / rms rounded, then the product with the weight rounded (Qwen-Image, Z-Image)
};

struct RmsNormKind {
  double eps = 1e-6;
  RmsRounding rounding = RmsRounding::kOnce;
};

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension, the mean in fp32.
class RmsNorm {
 public:
  /// Takes `<name>.weight` [channels].
  RmsNorm(Weights& weights, const std::string& name, int64_t channels, const RmsNormKind& kind)
      : weight_(weights.take(name + ".weight", {channels})), kind_(kind) {}

  /// x [..., channels] -> the same shape and dtype.
  at::Tensor operator()(const at::Tensor& x) const {
    if (kind_.rounding == RmsRounding::kOnce) return at::rms_norm(x, weight_.sizes(), weight_, kind_.eps);
    return at::rms_norm(x, weight_.sizes(), {}, kind_.eps) * weight_;
  }

 private:
  at::Tensor weight_;
  RmsNormKind kind_;
};

}  // namespace rtlynx::models
