#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "linear/linear.h"

namespace rtlynx {

/// X~ of x [..., k]: in each group of 4 consecutive k the 2 elements of largest |x| stay, the others become +0. Ties go
/// to the lower index, NaN counts as largest, -0 equals +0. If k is no multiple of 4 the last group is short: it keeps
/// 2 of 3, or all of 1 or 2. Float, bfloat16 and half, on any device, by torch's operators alone; exact.
/// Of a weight [n, k] it makes the 2:4 weight by magnitude that the comparisons use.
at::Tensor prune_24(const at::Tensor& x);

/// The energy of the tensors added so far, before and after pruning: sum x^2 and sum x~^2, in fp64.
struct KeptEnergy {
  double total = 0;
  double kept = 0;

  /// x [..., k], as prune_24 takes it. Goes over rows in pieces, so that memory stays below some 200 MB.
  void add(const at::Tensor& x);
  /// The share that pruning keeps, 0.5 to 1 (1 where nothing or only zeros were added).
  double share() const { return total > 0 ? kept / total : 1.0; }
};

/// The norm compensation of each token, fp32 [..., 1]: sqrt(sum x^2 / (sum x~^2 + 1e-8)), sums in fp32.
at::Tensor token_scale(const at::Tensor& x, const at::Tensor& pruned);

/// The factors of an adapter for one linear: lora_a [k, r], lora_b [r, n].
struct LoraFactors {
  at::Tensor lora_a;
  at::Tensor lora_b;
};

/// y = s * (X~ W^T) + (X L_A) L_B + bias by torch's operators, for devices that have no kernels of ours and as a second
/// opinion on those that have. Products in x's dtype; scale, branch and bias are added in fp32 and rounded once.
/// `mode` must be sparse; kSaNcLora needs `lora`.
at::Tensor sparse_linear_by_torch(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                  const std::optional<LoraFactors>& lora, LinearMode mode);

}  // namespace rtlynx
