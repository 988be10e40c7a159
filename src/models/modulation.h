#pragma once

#include <ATen/ATen.h>

namespace rtlynx::models {

/// LayerNorm without weights (eps 1e-6) over the last dimension.
inline at::Tensor plain_layer_norm(const at::Tensor& x) {
  constexpr double kNormEps = 1e-6;
  return at::layer_norm(x, {x.size(-1)}, {}, {}, kNormEps);
}

/// plain_layer_norm times (1 + scale), plus shift, for x [B, S, dim] and scale, shift [B, dim].
inline at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift) {
  return plain_layer_norm(x) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1);
}

/// residual + gate * update, with a gate [B, dim] for all tokens of an image.
inline at::Tensor gated_sum(const at::Tensor& residual, const at::Tensor& gate, const at::Tensor& update) {
  return residual + gate.unsqueeze(1) * update;
}

}  // namespace rtlynx::models
