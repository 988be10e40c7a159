#pragma once

#include <ATen/ATen.h>

#include <string>

#include "linear/weights.h"

namespace rtlynx::models {

/// A linear that always stays dense: embedders, modulation, first and last projections. They read few tokens (most of
/// them one per image), where sparse activations save nothing.
struct DenseLinear {
  at::Tensor weight;  ///< [n, k] as stored
  at::Tensor bias;    ///< [n], undefined where there is none

  /// Takes `<name>.weight` and, if has_bias, `<name>.bias`.
  DenseLinear(Weights& weights, const std::string& name, int64_t k, int64_t n, bool has_bias = true)
      : weight(weights.take(name + ".weight", {n, k})) {
    if (has_bias) bias = weights.take(name + ".bias", {n});
  }

  /// x [..., k] -> [..., n].
  at::Tensor operator()(const at::Tensor& x) const { return at::linear(x, weight, bias); }
};

}  // namespace rtlynx::models
