#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>

namespace rtlynx::calibration {

/// The rank-r branch that corrects a linear best, and how it was found.
struct LowRankFit {
  at::Tensor lora_a;  ///< [k, r], fp64
  at::Tensor lora_b;  ///< [r, n], fp64; column i of lora_a and row i of lora_b have the same norm
  at::Tensor gains;   ///< [r], fp64, falling: what each rank takes off the ridge loss
  double ridge = 0;   ///< the relative ridge that was used
  int attempts = 1;   ///< Cholesky factorisations tried
};

/// Called with one line for each failed factorisation.
using FitLog = std::function<void(const std::string& line)>;

/// Reduced-rank ridge regression, in closed form: argmin over L = lora_a lora_b of rank <= r of
///   |E - X L|^2 + lambda |L|^2,  lambda = ridge * mean(diag(X^T X)),
/// from gram = X^T X [k, k] and cross = X^T E [k, n] (both fp64 and on one device). With X^T X + lambda = C C^T and the
/// truncated SVD U S V^T of C^-1 cross it is C^-T U S V^T; the smaller of the two Grams of C^-1 cross gives the SVD.
/// Where the Cholesky factorisation fails, the ridge grows tenfold up to 4 times (each told to `log`); after that
/// Error(kSingular) names the linear `name`. Error(kNonFinite) where the sums hold NaN or Inf. r is cut to min(n, k).
LowRankFit fit_low_rank(const at::Tensor& gram, const at::Tensor& cross, int64_t rank, double ridge,
                        const std::string& name, const FitLog& log = {});

/// |E - X lora_a lora_b|^2 without ridge, from the same sums and error_energy = |E|^2. Never below 0.
double remaining_error(const at::Tensor& gram, const at::Tensor& cross, double error_energy, const at::Tensor& lora_a,
                       const at::Tensor& lora_b);

}  // namespace rtlynx::calibration
