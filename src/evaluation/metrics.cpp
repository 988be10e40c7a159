#include "evaluation/metrics.h"

#include <ATen/ops/linalg_eigh.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <cmath>

#include "rtlynx/status.h"

namespace rtlynx::evaluation {
namespace {

/// Eigenvalues (negative ones as 0) and eigenvectors of a symmetric matrix.
std::pair<at::Tensor, at::Tensor> eigen(const at::Tensor& symmetric) {
  const auto [values, vectors] = at::linalg_eigh((symmetric + symmetric.t()) / 2);
  return {values.clamp_min(0), vectors};
}

void expect_equal_counts(std::span<const Labels> asked, std::span<const Labels> found) {
  if (asked.size() != found.size() || asked.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("accuracy: {} captions for {} pictures", asked.size(), found.size()));
  }
}

}  // namespace

FeatureMoments moments(const at::Tensor& features) {
  const c10::InferenceMode guard;
  if (features.dim() != 2 || features.size(0) < 2) {
    throw Error(ErrorCode::kInvalidArgument, "moments: expected the features of at least two pictures");
  }
  const at::Tensor x = features.to(at::kCPU, at::kDouble);
  const at::Tensor mean = x.mean(0);
  const at::Tensor centred = x - mean;
  return {mean, centred.t().mm(centred) / static_cast<double>(x.size(0) - 1)};
}

double frechet_distance(const FeatureMoments& a, const FeatureMoments& b) {
  const c10::InferenceMode guard;
  const auto [values, vectors] = eigen(a.covariance);
  const at::Tensor root = (vectors * values.sqrt()).mm(vectors.t());
  const at::Tensor cross = eigen(root.mm(b.covariance).mm(root)).first.sqrt().sum();
  const at::Tensor distance =
      (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross;
  return distance.item<double>();
}

double psnr(const pipeline::Image& a, const pipeline::Image& b) {
  if (a.width != b.width || a.height != b.height || a.rgb.size() != b.rgb.size() || a.rgb.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("psnr: pictures of {} x {} and {} x {} pixels", a.width, a.height, b.width, b.height));
  }
  int64_t sum = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) {
    const int64_t difference = static_cast<int64_t>(a.rgb[i]) - b.rgb[i];
    sum += difference * difference;
  }
  if (sum == 0) return 100;
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.rgb.size()) / static_cast<double>(sum));
}

double prompt_accuracy(std::span<const Labels> asked, std::span<const Labels> found) {
  expect_equal_counts(asked, found);
  std::size_t right = 0;
  for (std::size_t i = 0; i < asked.size(); ++i) right += asked[i] == found[i] ? 1 : 0;
  return static_cast<double>(right) / static_cast<double>(asked.size());
}

std::array<double, kNumHeads> head_accuracy(std::span<const Labels> asked, std::span<const Labels> found) {
  expect_equal_counts(asked, found);
  std::array<double, kNumHeads> share{};
  for (std::size_t i = 0; i < asked.size(); ++i) {
    for (std::size_t head = 0; head < kNumHeads; ++head) share[head] += asked[i][head] == found[i][head] ? 1 : 0;
  }
  for (double& value : share) value /= static_cast<double>(asked.size());
  return share;
}

}  // namespace rtlynx::evaluation
