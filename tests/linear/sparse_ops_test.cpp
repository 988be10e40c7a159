#include "linear/sparse_ops.h"

#include <gtest/gtest.h>

#include <limits>

#include "oracle.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

/// All 9^4 groups over the values where selection rules usually break.
at::Tensor all_groups(at::ScalarType type) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const double denormal = type == at::kHalf ? 6e-8 : 1e-40;
  const at::Tensor values = at::tensor({-2.0, -1.0, -0.0, 0.0, 1.0, 2.0, nan, inf, denormal}, at::kDouble).to(type);
  const at::Tensor index = at::arange(6561);
  std::vector<at::Tensor> columns;
  for (int64_t divisor : {1, 9, 81, 729}) {
    columns.push_back(values.index_select(0, index.floor_divide(divisor).remainder(9)));
  }
  return at::stack(columns, 1);
}

void expect_pruned_like_oracle(const at::Tensor& x) {
  const at::Tensor pruned = prune_24(x);
  ASSERT_EQ(pruned.sizes(), x.sizes());
  for (int64_t i = 0; i < x.size(0); ++i) {
    const std::vector<double> got = testing::row_of(pruned, i), wanted = testing::prune_row(testing::row_of(x, i));
    for (std::size_t j = 0; j < got.size(); ++j) {
      const bool same = std::isnan(wanted[j]) ? std::isnan(got[j]) : got[j] == wanted[j];
      ASSERT_TRUE(same) << "row " << i << " (" << x[i] << ") column " << j << ": " << got[j] << " != " << wanted[j];
    }
  }
}

TEST(Prune24, EveryGroupOfSpecialValuesMatchesTheRule) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    expect_pruned_like_oracle(all_groups(type));
  }
}

TEST(Prune24, TiesOfNanPayloadsGoToTheLowerIndex) {
  const at::Tensor bits = at::tensor({0x7F800001, 0x7FFFFFFF, 0x7FC00000, 0x7F800000}, at::kInt);
  const at::Tensor pruned = prune_24(bits.view(at::kFloat));
  EXPECT_TRUE(pruned.isnan().equal(at::tensor({1, 1, 0, 0}, at::kInt).to(at::kBool)));
}

TEST(Prune24, ShortLastGroupsKeepTwo) {
  at::manual_seed(1);
  for (int64_t k : {1, 2, 3, 4, 5, 6, 7, 66}) {
    expect_pruned_like_oracle(at::randn({9, k}));
  }
}

TEST(Prune24, KeepsShapeOfManyDimensionsAndEmptyInputs) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({2, 3, 8});
  EXPECT_TRUE(prune_24(x).view({6, 8}).equal(prune_24(x.view({6, 8}))));
  EXPECT_TRUE(prune_24(x.transpose(0, 1)).equal(prune_24(x).transpose(0, 1)));
  EXPECT_EQ(prune_24(at::empty({0, 8})).sizes(), at::IntArrayRef({0, 8}));
}

TEST(Prune24, RefusesOtherTypesAndScalars) {
  for (const at::Tensor& x : {at::zeros({4}, at::kDouble), at::zeros({4}, at::kInt), at::zeros({}, at::kFloat)}) {
    try {
      prune_24(x);
      FAIL() << "accepted " << x;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    }
  }
}

TEST(KeptEnergy, IsTheShareOfTheSquaresThatStay) {
  KeptEnergy energy;
  EXPECT_EQ(energy.share(), 1.0);
  energy.add(at::zeros({3, 8}));
  energy.add(at::empty({0, 8}));
  EXPECT_EQ(energy.share(), 1.0);
  energy.add(at::tensor({1.0F, -4.0F, 2.0F, 3.0F, 5.0F, 0.0F}).to(at::kBFloat16));
  EXPECT_EQ(energy.total, 1 + 16 + 4 + 9 + 25);
  EXPECT_EQ(energy.kept, 16 + 9 + 25);
  energy.add(at::ones({2, 2, 4}));
  EXPECT_EQ(energy.share(), (50.0 + 8) / (55 + 16));
}

TEST(KeptEnergy, CountsEveryRowOfATensorThatTakesManyPieces) {
  constexpr int64_t kRows = 7001, kColumns = 1000;  // four pieces, the last one short
  at::Tensor x = at::ones({kRows, kColumns});
  x.select(0, kRows - 1).fill_(3);
  KeptEnergy energy;
  energy.add(x);
  EXPECT_EQ(energy.total, (kRows - 1 + 9) * kColumns);
  EXPECT_EQ(energy.kept, energy.total / 2);
  KeptEnergy wide;
  wide.add(at::ones({1, (int64_t{1} << 21) + 4}));  // one row is never cut
  EXPECT_EQ(wide.share(), 0.5);
}

struct Case {
  int64_t m, n, k, r;
  bool bias;
};

class SparseLinear : public ::testing::TestWithParam<Case> {};

TEST_P(SparseLinear, MatchesPlainLoopsInEveryMode) {
  const auto [m, n, k, r, has_bias] = GetParam();
  at::manual_seed(3);
  at::Tensor x = at::randn({m, k});
  x[0].zero_();
  if (m > 1) x[1] = x[1].sign();  // ties everywhere
  const at::Tensor w = at::randn({n, k}), b = has_bias ? at::randn({n}) : at::Tensor();
  const LoraFactors lora = {at::randn({k, r}) * 0.1, at::randn({r, n}) * 0.1};
  for (const LinearMode mode : {LinearMode::kSa, LinearMode::kSaNc, LinearMode::kSaNcLora}) {
    const bool branch = mode == LinearMode::kSaNcLora;
    const at::Tensor got = sparse_linear_by_torch(x, w, b, lora, mode).to(at::kDouble);
    const at::Tensor wanted = testing::sparse_linear_oracle(x, w, b, branch ? lora.lora_a : at::Tensor(), lora.lora_b,
                                                            mode != LinearMode::kSa);
    // fp32 sums of k + r products: k * 2^-24 of the sum of magnitudes bounds each element.
    const at::Tensor magnitude = at::matmul(x.abs(), w.abs().t()).to(at::kDouble) * 1.5 + k;
    const at::Tensor bound = magnitude * (static_cast<double>(k + r + 8) * 0x1p-24);
    EXPECT_TRUE((got - wanted).abs().le(bound).all().item<bool>()) << linear_mode_name(mode);
    EXPECT_TRUE(has_bias || branch || got[0].eq(0).all().item<bool>()) << "a zero token gives a zero row";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, SparseLinear,
                         ::testing::Values(Case{1, 1, 1, 1, false}, Case{3, 5, 7, 2, true}, Case{8, 16, 64, 4, false},
                                           Case{17, 33, 130, 8, true}));

TEST(SparseLinear, RefusesDenseAndMissingFactors) {
  const at::Tensor x = at::ones({1, 4}), w = at::ones({2, 4});
  for (const LinearMode mode : {LinearMode::kDense, LinearMode::kSaNcLora}) {
    try {
      sparse_linear_by_torch(x, w, {}, std::nullopt, mode);
      FAIL() << linear_mode_name(mode);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    }
  }
}

TEST(LinearModes, NamesGoBothWays) {
  for (const char* name : {"dense", "sa", "sa-nc", "sa-nc-lora"}) {
    EXPECT_EQ(linear_mode_name(linear_mode_from_name(name)), name);
  }
  EXPECT_THROW(linear_mode_from_name("sa_nc"), Error);
}

}  // namespace
}  // namespace rtlynx
