#include "calibration/low_rank.h"

#include <fmt/format.h>

#include <algorithm>

#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

constexpr int kAttempts = 5;
/// The first rung of the ladder where the caller asked for no ridge and the plain Gram failed.
constexpr double kSmallestRidge = 1e-6;

struct Factor {
  at::Tensor lower;  // C of C C^T
  double ridge;
  int attempts;
};

Factor factorise(const at::Tensor& gram, double ridge, const std::string& name, const FitLog& log) {
  const at::Tensor symmetric = (gram + gram.t()) * 0.5;
  const double mean = symmetric.diagonal().mean().item<double>();
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    at::Tensor damped = symmetric.clone();
    damped.diagonal().add_(ridge * mean);
    const auto [lower, info] = at::linalg_cholesky_ex(damped);
    if (info.item<int>() == 0 && lower.isfinite().all().item<bool>()) {
      return {lower, ridge, attempt};
    }
    if (log) {
      log(fmt::format("{}: the Gram matrix is not positive definite with a ridge of {:.0e} x its mean diagonal {:.3g}",
                      name, ridge, mean));
    }
    ridge = std::max(ridge * 10, kSmallestRidge);
  }
  throw Error(ErrorCode::kSingular,
              fmt::format("{}: the Gram matrix of its inputs (mean diagonal {:.3g}) stayed singular after {} dampings",
                          name, mean, kAttempts));
}

/// Left factor [k, r] = U S and right factor [r, n] = V^T of the truncated SVD of `s`, and S^2.
struct TruncatedSvd {
  at::Tensor left, right, squares;
};

TruncatedSvd truncated_svd(const at::Tensor& s, int64_t rank) {
  const bool wide = s.size(0) < s.size(1);
  const at::Tensor gram = wide ? at::matmul(s, s.t()) : at::matmul(s.t(), s);
  const auto [values, vectors] = at::linalg_eigh(gram);  // rising
  const at::Tensor top = vectors.narrow(1, vectors.size(1) - rank, rank).flip(1);
  const at::Tensor squares = values.narrow(0, values.size(0) - rank, rank).flip(0).clamp_min(0.0);
  if (wide) {
    return {top, at::matmul(top.t(), s), squares};
  }
  return {at::matmul(s, top), top.t().contiguous(), squares};
}

}  // namespace

LowRankFit fit_low_rank(const at::Tensor& gram, const at::Tensor& cross, int64_t rank, double ridge,
                        const std::string& name, const FitLog& log) {
  if (!gram.isfinite().all().item<bool>() || !cross.isfinite().all().item<bool>()) {
    throw Error(ErrorCode::kNonFinite, fmt::format("{}: the calibration's sums hold NaN or Inf", name));
  }
  const Factor factor = factorise(gram, ridge, name, log);
  const at::Tensor whitened = at::linalg_solve_triangular(factor.lower, cross, /*upper=*/false);
  const TruncatedSvd svd = truncated_svd(whitened, std::min({rank, cross.size(0), cross.size(1)}));
  at::Tensor lora_a = at::linalg_solve_triangular(factor.lower.t(), svd.left, /*upper=*/true);
  at::Tensor lora_b = svd.right;
  // Equal norms: bf16 then rounds both factors alike. A vanished component stays 0 * 0.
  const at::Tensor norm_a = lora_a.norm(2, {0}), norm_b = lora_b.norm(2, {1});
  const at::Tensor live = norm_a.gt(0).logical_and(norm_b.gt(0));
  const at::Tensor balance = at::where(live, (norm_b / norm_a).sqrt(), at::zeros_like(norm_a));
  lora_a = lora_a * balance;
  lora_b = lora_b * at::where(live, balance.reciprocal(), balance).unsqueeze(1);
  return {lora_a, lora_b, svd.squares, factor.ridge, factor.attempts};
}

double remaining_error(const at::Tensor& gram, const at::Tensor& cross, double error_energy, const at::Tensor& lora_a,
                       const at::Tensor& lora_b) {
  const at::Tensor a = lora_a.to(at::kDouble), b = lora_b.to(at::kDouble);
  const double explained = at::sum(at::matmul(a.t(), cross) * b).item<double>();
  const double energy = at::sum(at::matmul(at::matmul(a.t(), at::matmul(gram, a)), b) * b).item<double>();
  return std::max(error_energy - 2 * explained + energy, 0.0);
}

}  // namespace rtlynx::calibration
