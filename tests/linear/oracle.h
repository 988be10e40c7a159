#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <vector>

namespace rtlynx::testing {

/// The rule of 2:4 selection in plain words: true where `a` is to be kept before `b`, a standing at the lower index.
inline bool at_least(double a, double b) {
  if (std::isnan(a)) return true;
  if (std::isnan(b)) return false;
  return std::fabs(a) >= std::fabs(b);
}

/// X~ of one row, by selecting the best twice.
inline std::vector<double> prune_row(const std::vector<double>& x) {
  std::vector<double> pruned(x.size(), 0.0);
  for (std::size_t start = 0; start < x.size(); start += 4) {
    const std::size_t end = std::min(start + 4, x.size());
    std::vector<bool> taken(x.size(), false);
    for (int round = 0; round < 2; ++round) {
      std::size_t best = x.size();
      for (std::size_t i = start; i < end; ++i) {
        if (!taken[i] && (best == x.size() || !at_least(x[best], x[i]))) best = i;
      }
      if (best == x.size()) break;
      taken[best] = true;
      pruned[best] = x[best];
    }
  }
  return pruned;
}

inline std::vector<double> row_of(const at::Tensor& matrix, int64_t row) {
  const at::Tensor values = matrix[row].to(at::kDouble).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

/// s * (X~ W^T) + (X L_A) L_B + bias in double, by plain loops; undefined tensors leave their part out.
inline at::Tensor sparse_linear_oracle(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                       const at::Tensor& lora_a, const at::Tensor& lora_b, bool with_scale) {
  const int64_t m = x.size(0), n = weight.size(0);
  const at::Tensor w = weight.to(at::kDouble).contiguous();
  at::Tensor y = at::zeros({m, n}, at::kDouble);
  auto out = y.accessor<double, 2>();
  const auto w_at = w.accessor<double, 2>();
  const at::Tensor product =
      lora_a.defined() ? at::matmul(lora_a.to(at::kDouble), lora_b.to(at::kDouble)).contiguous() : at::Tensor();
  for (int64_t i = 0; i < m; ++i) {
    const std::vector<double> row = row_of(x, i), pruned = prune_row(row);
    double full = 0, kept = 0;
    for (std::size_t j = 0; j < row.size(); ++j) {
      full += row[j] * row[j];
      kept += pruned[j] * pruned[j];
    }
    const double scale = with_scale ? std::sqrt(full / (kept + 1e-8)) : 1.0;
    for (int64_t o = 0; o < n; ++o) {
      double sum = 0;
      for (std::size_t j = 0; j < row.size(); ++j) {
        sum += scale * pruned[j] * w_at[o][static_cast<int64_t>(j)];
        if (product.defined()) sum += row[j] * product.accessor<double, 2>()[static_cast<int64_t>(j)][o];
      }
      out[i][o] = sum + (bias.defined() ? bias[o].item<double>() : 0.0);
    }
  }
  return y;
}

}  // namespace rtlynx::testing
