#include "linear/linear.h"

#include <gtest/gtest.h>

#include <map>

#include "linear/sparse_ops.h"
#include "linear/weights.h"
#include "oracle.h"
#include "rtlynx/linear.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

constexpr int64_t kIn = 36, kOut = 20, kRank = 3;

struct Fixture {
  at::Tensor weight, bias, lora_a, lora_b, x;
  Linear linear;

  explicit Fixture(at::ScalarType type = at::kFloat, bool with_bias = true)
      : Fixture((at::manual_seed(11), at::randn({kOut, kIn}).to(type)), at::randn({kOut}).to(type), type, with_bias) {}

 private:
  Fixture(const at::Tensor& w, const at::Tensor& b, at::ScalarType type, bool with_bias)
      : weight(w),
        bias(with_bias ? b : at::Tensor()),
        lora_a((at::randn({kIn, kRank}) * 0.2).to(type)),
        lora_b((at::randn({kRank, kOut}) * 0.2).to(type)),
        x(at::randn({2, 5, kIn}).to(type)),
        linear(make(w, bias, type)) {
    x[0][0].zero_();
    x[0][1] = x[0][1].sign();
  }

  static Linear make(const at::Tensor& w, const at::Tensor& b, at::ScalarType type) {
    std::map<std::string, at::Tensor> tensors = {{"to_q.weight", w}};
    if (b.defined()) tensors["to_q.bias"] = b;
    Weights weights(std::move(tensors), "test", {at::kCPU, type});
    return {weights, "to_q", kIn, kOut, b.defined()};
  }
};

ErrorCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_NE(error.status().message().find("to_q"), std::string::npos) << error.what();
    return error.code();
  }
  return ErrorCode::kOk;
}

TEST(Linear, DenseIsTorchsLinear) {
  for (const bool with_bias : {true, false}) {
    Fixture f(at::kFloat, with_bias);
    EXPECT_TRUE(f.linear(f.x).equal(at::linear(f.x, f.weight, f.bias)));
    EXPECT_EQ(f.linear.bias().defined(), with_bias);
  }
}

TEST(Linear, KernelsAndTorchAndPlainLoopsAgreeInEveryMode) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const bool with_bias : {true, false}) {
      Fixture f(type, with_bias);
      f.linear.set_lora(f.lora_a, f.lora_b);
      for (const LinearMode mode : {LinearMode::kSa, LinearMode::kSaNc, LinearMode::kSaNcLora}) {
        f.linear.set_mode(mode, PlanPolicy::kSparse);
        const at::Tensor got = f.linear(f.x);
        ASSERT_EQ(got.scalar_type(), type);
        ASSERT_EQ(got.sizes(), at::IntArrayRef({2, 5, kOut}));
        const at::Tensor by_torch =
            sparse_linear_by_torch(f.x, f.weight, f.bias, LoraFactors{f.lora_a, f.lora_b}, mode);
        const at::Tensor wanted = testing::sparse_linear_oracle(f.x.view({10, kIn}), f.weight, f.bias,
                                                                mode == LinearMode::kSaNcLora ? f.lora_a : at::Tensor(),
                                                                f.lora_b, mode != LinearMode::kSa);
        // One rounding of the result, and sums of k fp32 products (bf16 torch rounds the product and the branch, too).
        const double unit = type == at::kFloat ? 0x1p-24 : 0x1p-8;
        const at::Tensor size =
            wanted.abs() + at::matmul(f.x.abs(), f.weight.abs().t()).view({10, kOut}).to(at::kDouble);
        const at::Tensor bound = size * ((type == at::kFloat ? kIn + kRank : 1) * unit);
        const auto within = [&](const at::Tensor& y, double factor) {
          return (y.view({10, kOut}).to(at::kDouble) - wanted).abs().le(bound * factor).all().item<bool>();
        };
        EXPECT_TRUE(within(got, 1)) << linear_mode_name(mode);
        EXPECT_TRUE(within(by_torch, 2)) << linear_mode_name(mode);
      }
    }
  }
}

TEST(Linear, ModesDifferSoTheComparisonsMeanSomething) {
  Fixture f;
  f.linear.set_lora(f.lora_a, f.lora_b);
  std::vector<at::Tensor> results;
  for (const LinearMode mode : {LinearMode::kDense, LinearMode::kSa, LinearMode::kSaNc, LinearMode::kSaNcLora}) {
    f.linear.set_mode(mode, PlanPolicy::kSparse);
    for (const at::Tensor& other : results) EXPECT_FALSE(at::allclose(f.linear(f.x), other, 1e-3, 1e-3));
    results.push_back(f.linear(f.x));
    EXPECT_TRUE(results.back().equal(f.linear(f.x))) << "deterministic";
  }
  f.linear.set_mode(LinearMode::kDense, PlanPolicy::kAuto);
  EXPECT_TRUE(f.linear(f.x).equal(results.front())) << "and back";
}

TEST(Linear, WeightAndFactorsCanBeReplacedWhilePacked) {
  Fixture f;
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kSparse);
  const at::Tensor before = f.linear(f.x);
  f.linear.set_weight(f.weight * 2);
  EXPECT_TRUE(at::allclose(f.linear(f.x) - f.bias, (before - f.bias) * 2, 1e-5, 1e-5));
  f.linear.set_lora(f.lora_a, f.lora_b);
  f.linear.set_mode(LinearMode::kSaNcLora, PlanPolicy::kSparse);
  const at::Tensor with_branch = f.linear(f.x);
  f.linear.set_lora(f.lora_a, -f.lora_b);
  EXPECT_FALSE(at::allclose(f.linear(f.x), with_branch));
}

TEST(Linear, AutoFollowsThePlanAndRequireRefusesWhatDoesNotPay) {
  Fixture f;
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kAuto);
  const bool pays = plan_linear({kOut, kIn, DType::kF32, 0}, 10).execution == Execution::kSparse;
  EXPECT_EQ(f.linear.decide(10).sparse, pays);
  EXPECT_FALSE(f.linear.decide(10).why.empty());
  EXPECT_EQ(f.linear(f.x).equal(at::linear(f.x, f.weight, f.bias)), !pays);
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kRequire);
  EXPECT_EQ(code_of([&] { f.linear(f.x); }), pays ? ErrorCode::kOk : ErrorCode::kUnsupported);
  f.linear.set_mode(LinearMode::kDense, PlanPolicy::kSparse);
  EXPECT_FALSE(f.linear.decide(10).sparse);
}

TEST(Linear, TypesWithoutKernelsRunByTorch) {
  Fixture f(at::kHalf);
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kAuto);
  EXPECT_FALSE(f.linear.decide(10).sparse);
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kSparse);
  EXPECT_TRUE(f.linear(f.x).equal(sparse_linear_by_torch(f.x, f.weight, f.bias, std::nullopt, LinearMode::kSaNc)));
}

TEST(Linear, EmptyBatchesAndOddStrides) {
  Fixture f;
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kSparse);
  EXPECT_EQ(f.linear(at::empty({0, kIn})).sizes(), at::IntArrayRef({0, kOut}));
  EXPECT_TRUE(f.linear(f.x.transpose(0, 1)).equal(f.linear(f.x).transpose(0, 1)));
  EXPECT_TRUE(f.linear(f.x[0][2]).equal(f.linear(f.x)[0][2]));
}

TEST(Linear, ObserverSeesEveryInput) {
  Fixture f;
  int calls = 0;
  f.linear.set_observer([&](const Linear& linear, const at::Tensor& x) {
    EXPECT_EQ(linear.name(), "to_q");
    EXPECT_TRUE(x.is_same(f.x));
    ++calls;
  });
  f.linear(f.x);
  f.linear.set_mode(LinearMode::kSa, PlanPolicy::kSparse);
  f.linear(f.x);
  f.linear.set_observer({});
  f.linear(f.x);
  EXPECT_EQ(calls, 2);
}

TEST(Linear, WrongTensorsAreRefusedByName) {
  Fixture f;
  const ErrorCode bad = ErrorCode::kInvalidArgument;
  EXPECT_EQ(code_of([&] { f.linear(at::zeros({2, kIn + 1})); }), bad);
  EXPECT_EQ(code_of([&] { f.linear(at::zeros({2, kIn}, at::kBFloat16)); }), bad);
  EXPECT_EQ(code_of([&] { f.linear.set_weight(at::zeros({kIn, kOut})); }), bad);
  EXPECT_EQ(code_of([&] { f.linear.set_lora(f.lora_a, {}); }), bad);
  EXPECT_EQ(code_of([&] { f.linear.set_lora(f.lora_b, f.lora_a); }), bad);
  f.linear.set_mode(LinearMode::kSaNcLora, PlanPolicy::kSparse);
  EXPECT_EQ(code_of([&] { f.linear(f.x); }), bad);
}

}  // namespace
}  // namespace rtlynx
