#include "calibration/statistics.h"

#include <gtest/gtest.h>

#include "linear/sparse_ops.h"
#include "tests/calibration/toy_model.h"
#include "tests/core/expect_error.h"

namespace rtlynx::calibration {
namespace {

using testing::expect_error;
using testing::ToyModel;

const std::vector<std::string> kPrompts = {"a fox", "a red apple", "two"};
const std::vector<uint64_t> kSeeds = {3, 4, 5};
constexpr int64_t kSteps = 4;

InputGroups groups_of(ToyModel& model) {
  return find_input_groups(model.linears(), [&] { model.run({"a fox"}, {3}, 1, {}); });
}

Sums gather(ToyModel& model, int64_t stride, int64_t chunk_index = 0) {
  const std::vector<Linear*> linears = model.linears();
  const InputGroups groups = groups_of(model);
  Sums sums = empty_sums(linears, groups);
  Collector collector(linears, groups, stride, sums);
  collector.begin_chunk({chunk_index, 0, kPrompts});
  model.run(kPrompts, kSeeds, kSteps, {});
  return sums;
}

TEST(InputGroups, LinearsThatReadOneTensorAreFound) {
  ToyModel model;
  EXPECT_EQ(groups_of(model), (InputGroups{{0, 1, 2}, {3}, {4}}));
}

TEST(InputGroups, LinearsThatNeverRunAreAnError) {
  ToyModel model;
  expect_error(ErrorCode::kInternal, {"q", "0 times"}, [&] { find_input_groups(model.linears(), [] {}); });
  expect_error(ErrorCode::kInternal, {"q", "2 times"},
               [&] { find_input_groups(model.linears(), [&] { model.run({"a"}, {1}, 2, {}); }); });
}

/// Every input of `linear` over the whole run, [tokens, k] in double.
at::Tensor inputs_of(ToyModel& model, std::size_t linear) {
  std::vector<at::Tensor> rows;
  Linear* watched = model.linears()[linear];
  watched->set_observer([&](const Linear&, const at::Tensor& x) {
    rows.push_back(x.reshape({-1, x.size(-1)}).clone());
  });
  model.run(kPrompts, kSeeds, kSteps, {});
  watched->set_observer({});
  return at::cat(rows);
}

TEST(Statistics, EqualTheSumsOverAllTokensInDouble) {
  ToyModel model;
  const Sums sums = gather(model, 1);
  const InputGroups groups = {{0, 1, 2}, {3}, {4}};
  std::size_t error = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const at::Tensor rows = inputs_of(model, groups[g].front());
    const at::Tensor x = rows.to(at::kDouble), kept = prune_24(rows).to(at::kDouble);
    const at::Tensor scale = (x.square().sum(1, true) / (kept.square().sum(1, true) + 1e-8)).sqrt();
    const at::Tensor residual = x - scale * kept;
    const InputSums& input = sums.inputs[g];
    // fp32 products of 21 tokens: a few units of 2^-24 of the sum of magnitudes.
    const at::Tensor size = at::matmul(x.abs().t(), x.abs());
    EXPECT_TRUE((input.gram - at::matmul(x.t(), x)).abs().le(size * 4e-6).all().item<bool>());
    EXPECT_TRUE((input.cross - at::matmul(x.t(), residual)).abs().le(size * 4e-6).all().item<bool>());
    EXPECT_EQ(input.tokens, rows.size(0));
    EXPECT_NEAR(input.energy, x.square().sum().item<double>(), 1e-9 * input.energy);
    EXPECT_NEAR(input.kept, kept.square().sum().item<double>(), 1e-9 * input.energy);
    for (const std::size_t i : groups[g]) {
      const at::Tensor e = at::matmul(residual, model.linears()[i]->weight().to(at::kDouble).t());
      const double wanted = e.square().sum().item<double>();
      EXPECT_NEAR(sums.error_energy[error++], wanted, 1e-5 * wanted);
    }
  }
}

TEST(Statistics, AStrideTakesEveryTokenOnceInItsTurn) {
  ToyModel model;
  const Sums all = gather(model, 1);
  Sums parts = empty_sums(model.linears(), groups_of(model));
  for (int64_t chunk = 0; chunk < 3; ++chunk) {  // three chunks start at three different tokens
    const Sums part = gather(model, 3, chunk);
    EXPECT_EQ(part.inputs[0].tokens, all.inputs[0].tokens / 3);
    parts.inputs[0].gram += part.inputs[0].gram;
  }
  EXPECT_TRUE(at::allclose(parts.inputs[0].gram, all.inputs[0].gram, 1e-5, 1e-5));
}

TEST(Statistics, AreTheSameBitsEveryTime) {
  ToyModel model;
  const Sums a = gather(model, 2), b = gather(model, 2);
  for (std::size_t g = 0; g < a.inputs.size(); ++g) {
    EXPECT_TRUE(a.inputs[g].gram.equal(b.inputs[g].gram));
    EXPECT_TRUE(a.inputs[g].cross.equal(b.inputs[g].cross));
  }
  EXPECT_EQ(a.error_energy, b.error_energy);
}

TEST(Statistics, OneBadTokenIsRefusedWithItsPrompt) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    ToyModel model;
    model.before_forward = [&](at::Tensor& batch) {
      if (batch.size(0) == 3) batch[1][6][11] = bad;
    };
    expect_error(ErrorCode::kNonFinite, {"input of q", "prompt 2", "a red apple"}, [&] { gather(model, 4); });
    for (Linear* linear : model.linears()) EXPECT_NO_THROW(linear->operator()(at::zeros({1, linear->k()})));
  }
}

TEST(Statistics, APlantedErrorInAGramIsSeen) {
  // The comparison above must be able to fail: one token more changes the sums by more than its bounds.
  ToyModel model;
  const at::Tensor x = inputs_of(model, 0).to(at::kDouble);
  const at::Tensor one_less = x.narrow(0, 1, x.size(0) - 1);
  const at::Tensor size = at::matmul(x.abs().t(), x.abs());
  const at::Tensor difference = at::matmul(x.t(), x) - at::matmul(one_less.t(), one_less);
  EXPECT_FALSE(difference.abs().le(size * 4e-6).all().item<bool>());
}

}  // namespace
}  // namespace rtlynx::calibration
