#include "evaluation/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/core/expect_error.h"

namespace rtlynx::evaluation {
namespace {

using rtlynx::testing::expect_error;

TEST(Frechet, KnownDistances) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({500, 6}, at::kDouble);
  const FeatureMoments a = moments(x), shifted = moments(x + 2.0), scaled = moments(x * 3.0);
  EXPECT_NEAR(frechet_distance(a, a), 0, 1e-9);
  EXPECT_NEAR(frechet_distance(a, shifted), 6 * 4.0, 1e-9);
  // Covariances C and 9 C: tr(C + 9C - 2 * 3C) = 4 tr C; means m and 3 m.
  const double wanted = 4 * a.covariance.trace().item<double>() + 4 * a.mean.square().sum().item<double>();
  EXPECT_NEAR(frechet_distance(a, scaled), wanted, 1e-8);
  EXPECT_NEAR(frechet_distance(scaled, a), wanted, 1e-8);
}

TEST(Frechet, FewerSamplesThanFeaturesStayFinite) {
  at::manual_seed(2);
  const double distance = frechet_distance(moments(at::randn({5, 40})), moments(at::randn({6, 40})));
  EXPECT_TRUE(std::isfinite(distance));
  EXPECT_GT(distance, 0);
  expect_error(ErrorCode::kInvalidArgument, {"two pictures"}, [] { moments(at::zeros({1, 4})); });
}

TEST(Psnr, KnownValues) {
  const pipeline::Image black = {2, 1, {0, 0, 0, 0, 0, 0}, 0}, white = {2, 1, {255, 255, 255, 255, 255, 255}, 0};
  const pipeline::Image close = {2, 1, {0, 0, 1, 0, 0, 0}, 0};
  EXPECT_DOUBLE_EQ(psnr(black, white), 0);
  EXPECT_DOUBLE_EQ(psnr(black, black), 100);
  EXPECT_NEAR(psnr(black, close), 10 * std::log10(255.0 * 255.0 * 6), 1e-12);
  const pipeline::Image tall = {1, 2, {0, 0, 0, 0, 0, 0}, 0};
  expect_error(ErrorCode::kInvalidArgument, {"2 x 1", "1 x 2"}, [&] { psnr(black, tall); });
}

TEST(Accuracy, OneWrongHeadMakesAPictureWrong) {
  std::vector<Labels> asked(4, Labels{1, 2, 3, 4, 5, 6, 0}), found = asked;
  EXPECT_EQ(prompt_accuracy(asked, found), 1.0);
  found[2][5] = 7;
  EXPECT_EQ(prompt_accuracy(asked, found), 0.75);
  EXPECT_EQ(head_accuracy(asked, found)[5], 0.75);
  EXPECT_EQ(head_accuracy(asked, found)[0], 1.0);
  found.pop_back();
  expect_error(ErrorCode::kInvalidArgument, {"4", "3"}, [&] { prompt_accuracy(asked, found); });
}

}  // namespace
}  // namespace rtlynx::evaluation
