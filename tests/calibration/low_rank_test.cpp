#include "calibration/low_rank.h"

#include <gtest/gtest.h>

#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

struct Problem {
  at::Tensor x, e, gram, cross;
  double energy = 0;

  Problem(int64_t tokens, int64_t k, int64_t n, uint64_t seed) {
    at::manual_seed(seed);
    const at::Tensor mixing = at::randn({k, k}, at::kDouble);  // correlated inputs, as real ones are
    x = at::matmul(at::randn({tokens, k}, at::kDouble), mixing);
    e = at::matmul(x, at::randn({k, n}, at::kDouble)) * 0.1 + at::randn({tokens, n}, at::kDouble);
    gram = at::matmul(x.t(), x);
    cross = at::matmul(x.t(), e);
    energy = e.square().sum().item<double>();
  }

  double error_of(const at::Tensor& l) const { return (e - at::matmul(x, l)).square().sum().item<double>(); }
};

TEST(LowRank, FullRankWithoutRidgeIsLeastSquares) {
  for (const auto& [k, n] : {std::pair{24, 10}, {10, 24}, {16, 16}}) {
    const Problem p(400, k, n, 1);
    const LowRankFit fit = fit_low_rank(p.gram, p.cross, n, 0.0, "l");
    const at::Tensor ols = std::get<0>(at::linalg_lstsq(p.x, p.e));
    const double wanted = p.error_of(ols);
    EXPECT_NEAR(p.error_of(at::matmul(fit.lora_a, fit.lora_b)), wanted, 1e-9 * wanted);
    EXPECT_TRUE(at::allclose(at::matmul(fit.lora_a, fit.lora_b), ols, 1e-6, 1e-8));
  }
}

TEST(LowRank, LossFallsWithTheRankByTheGainsItNames) {
  const Problem p(300, 20, 12, 2);
  double before = p.energy;
  const LowRankFit full = fit_low_rank(p.gram, p.cross, 12, 0.0, "l");
  for (int64_t rank = 1; rank <= 12; ++rank) {
    const LowRankFit fit = fit_low_rank(p.gram, p.cross, rank, 0.0, "l");
    const double error = p.error_of(at::matmul(fit.lora_a, fit.lora_b));
    EXPECT_LT(error, before);
    EXPECT_NEAR(before - error, full.gains[rank - 1].item<double>(), 1e-8 * p.energy);
    EXPECT_NEAR(remaining_error(p.gram, p.cross, p.energy, fit.lora_a, fit.lora_b), error, 1e-9 * p.energy);
    before = error;
  }
}

/// The same optimum by another way: the ridge as extra rows of X, and the SVD of the projected targets (Eckart-Young in
/// the space of fitted values).
TEST(LowRank, AgreesWithAugmentedRegressionByAnotherRoute) {
  for (const auto& [k, n, rank] : {std::tuple{18, 9, 4}, {9, 18, 4}, {13, 13, 1}}) {
    const Problem p(200, k, n, 3);
    const double ridge = 1e-2, lambda = ridge * p.gram.diagonal().mean().item<double>();
    const at::Tensor rows = at::cat({p.x, at::eye(k, at::kDouble) * std::sqrt(lambda)});
    const at::Tensor targets = at::cat({p.e, at::zeros({k, n}, at::kDouble)});
    const at::Tensor ols = std::get<0>(at::linalg_lstsq(rows, targets));
    const at::Tensor v = std::get<2>(at::linalg_svd(at::matmul(rows, ols), false)).narrow(0, 0, rank);
    const at::Tensor wanted = at::matmul(at::matmul(ols, v.t()), v);
    const LowRankFit fit = fit_low_rank(p.gram, p.cross, rank, ridge, "l");
    EXPECT_TRUE(at::allclose(at::matmul(fit.lora_a, fit.lora_b), wanted, 1e-7, 1e-9)) << k << "x" << n;
  }
}

TEST(LowRank, NoOtherBranchOfThatRankIsBetter) {
  const Problem p(200, 12, 8, 4);
  const LowRankFit fit = fit_low_rank(p.gram, p.cross, 3, 0.0, "l");
  const double best = p.error_of(at::matmul(fit.lora_a, fit.lora_b));
  for (int i = 0; i < 200; ++i) {
    const double size = std::pow(10.0, -1 - i % 5);
    const at::Tensor a = fit.lora_a + at::randn_like(fit.lora_a) * size,
                     b = fit.lora_b + at::randn_like(fit.lora_b) * size;
    EXPECT_GE(p.error_of(at::matmul(a, b)), best);
  }
}

TEST(LowRank, FactorsAreBalanced) {
  const Problem p(200, 12, 30, 5);
  const LowRankFit fit = fit_low_rank(p.gram, p.cross, 5, 1e-3, "l");
  EXPECT_TRUE(at::allclose(fit.lora_a.norm(2, {0}), fit.lora_b.norm(2, {1}), 1e-9, 0));
}

TEST(LowRank, SingularGramsAreDampedAndTold) {
  Problem p(200, 12, 8, 6);
  p.x.select(1, 3).zero_();                  // a dead channel
  p.x.select(1, 4).copy_(p.x.select(1, 5));  // and a repeated one
  p.gram = at::matmul(p.x.t(), p.x);
  p.cross = at::matmul(p.x.t(), p.e);
  std::vector<std::string> lines;
  const LowRankFit fit =
      fit_low_rank(p.gram, p.cross, 4, 0.0, "blocks.7", [&](const std::string& l) { lines.push_back(l); });
  EXPECT_GT(fit.attempts, 1);
  EXPECT_GT(fit.ridge, 0.0);
  ASSERT_EQ(static_cast<int>(lines.size()), fit.attempts - 1);
  EXPECT_NE(lines[0].find("blocks.7"), std::string::npos);
  EXPECT_TRUE(fit.lora_a.isfinite().all().item<bool>());
  EXPECT_EQ(fit_low_rank(p.gram, p.cross, 4, 1e-3, "l").attempts, 1);
}

TEST(LowRank, HopelessInputsAreErrorsThatNameTheLinear) {
  const auto code_of = [](const at::Tensor& gram, const at::Tensor& cross) {
    try {
      fit_low_rank(gram, cross, 2, 1e-3, "blocks.7");
    } catch (const Error& error) {
      EXPECT_NE(error.status().message().find("blocks.7"), std::string::npos);
      return error.code();
    }
    return ErrorCode::kOk;
  };
  const at::Tensor zeros = at::zeros({6, 6}, at::kDouble), cross = at::zeros({6, 3}, at::kDouble);
  EXPECT_EQ(code_of(zeros, cross), ErrorCode::kSingular);
  EXPECT_EQ(code_of(-at::eye(6, at::kDouble), cross), ErrorCode::kSingular);
  EXPECT_EQ(code_of(zeros / 0.0, cross), ErrorCode::kNonFinite);
}

TEST(LowRank, NothingToCorrectGivesZeroFactors) {
  const at::Tensor gram = at::eye(6, at::kDouble);
  const LowRankFit fit = fit_low_rank(gram, at::zeros({6, 3}, at::kDouble), 2, 1e-3, "l");
  EXPECT_TRUE(fit.lora_a.eq(0).all().item<bool>());
  EXPECT_TRUE(fit.lora_b.eq(0).all().item<bool>());
}

}  // namespace
}  // namespace rtlynx::calibration
