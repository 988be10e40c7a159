// Linear on a Hopper GPU: every sparse mode beside the definition in fp64, what runs by torch's operators instead, and
// the operators' own functions. Skipped, with the reason, where the kernels cannot run.
#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "linear/cpu_kernels.h"
#include "linear/cuda_kernels.h"
#include "linear/linear.h"
#include "linear/sparse_ops.h"
#include "linear/weights.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

constexpr LinearMode kSparseModes[] = {LinearMode::kSa, LinearMode::kSaNc, LinearMode::kSaNcLora};

std::string reason_to_skip() {
  if (!at::hasCUDA() || at::getNumGPUs() == 0) return "libtorch finds no usable GPU";
  return cuda_refusal(at::empty({64, 64}, at::device(at::kCUDA).dtype(at::kBFloat16)), 0);
}

#define SKIP_WITHOUT_HOPPER()                    \
  do {                                           \
    const std::string reason = reason_to_skip(); \
    if (!reason.empty()) GTEST_SKIP() << reason; \
  } while (false)

struct Shape {
  int64_t m, n, k, rank;
};

/// One linear on the GPU, its parameters on the host beside it.
struct Fixture {
  c10::InferenceMode inference;
  at::Tensor weight, bias, lora_a, lora_b, x;
  Linear linear;

  explicit Fixture(const Shape& shape, at::ScalarType type = at::kBFloat16, bool with_bias = true)
      : weight((at::manual_seed(3), at::randn({shape.n, shape.k}).to(type))),
        bias(with_bias ? at::randn({shape.n}).to(type) : at::Tensor()),
        lora_a((at::randn({shape.k, shape.rank}) * 0.1).to(type)),
        lora_b((at::randn({shape.rank, shape.n}) * 0.3).to(type)),
        x(at::randn({shape.m, shape.k}).to(type)),
        linear(make(shape, type)) {
    x[0].zero_();                   // a token without energy
    if (shape.m > 1) x[1].sign_();  // nothing but ties
    if (shape.m > 2) x[2].mul_(1e-3).slice(0, 0, 1).fill_(100);
    linear.set_lora(lora_a.to(at::kCUDA), lora_b.to(at::kCUDA));
  }

  at::Tensor x_on_gpu() const { return x.to(at::kCUDA); }

 private:
  Linear make(const Shape& shape, at::ScalarType type) const {
    std::map<std::string, at::Tensor> tensors = {{"to_q.weight", weight.to(at::kCUDA)}};
    if (bias.defined()) tensors["to_q.bias"] = bias.to(at::kCUDA);
    Weights weights(std::move(tensors), "test", {at::Device(at::kCUDA, 0), type});
    return {weights, "to_q", shape.k, shape.n, bias.defined()};
  }
};

/// The definition in fp64, and how far a result may be from it. Kernels: one rounding of the result to bf16, one of
/// each factor of T, and fp32 sums whose every step of 16 k may lose two units. torch's operators round the product and
/// the branch to the type as well.
struct Expected {
  at::Tensor y, bound;

  Expected(const Fixture& f, LinearMode mode, bool by_torch) {
    const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const at::Tensor kept = wide(prune_24(f.x)), w = wide(f.weight).t();
    at::Tensor scale = at::ones({f.x.size(0), 1}, at::kDouble);
    if (mode != LinearMode::kSa) {
      scale = (wide(f.x).square().sum(1, true) / (kept.square().sum(1, true) + 1e-8)).sqrt();
    }
    const at::Tensor product = scale * kept.matmul(w);
    const double unit = f.x.scalar_type() == at::kFloat ? 0x1p-24 : 0x1p-8;
    const double steps = static_cast<double>(f.x.size(1) / 16 + 16) * 0x1p-22;
    const at::Tensor sums = scale * kept.abs().matmul(w.abs()) * (by_torch ? 4 * steps : steps);
    y = product;
    at::Tensor roundings = by_torch ? 2 * product.abs() : at::zeros_like(product);
    if (mode == LinearMode::kSaNcLora) {
      const at::Tensor down = wide(f.x).matmul(wide(f.lora_a)), branch = down.matmul(wide(f.lora_b));
      y = y + branch;
      roundings = roundings + down.abs().matmul(wide(f.lora_b).abs());
      if (by_torch) roundings = roundings + 2 * branch.abs();
    }
    if (f.bias.defined()) y = y + wide(f.bias);
    bound = (y.abs() + roundings) * unit + sums;
  }

  /// The greatest error as a share of its bound.
  double worst(const at::Tensor& got) const {
    const at::Tensor error = (got.to(at::kCPU).to(at::kDouble).view_as(y) - y).abs();
    return (error / (bound + 1e-30)).max().item<double>();
  }
};

TEST(LinearOnHopper, AgreesWithTheDefinitionInEveryMode) {
  SKIP_WITHOUT_HOPPER();
  for (const Shape& shape :
       {Shape{1, 64, 64, 8}, Shape{3, 8, 128, 8}, Shape{100, 264, 128, 16}, Shape{129, 520, 192, 3},
        Shape{257, 1024, 1024, 64}, Shape{1000, 3072, 3072, 64}, Shape{513, 1032, 3072, 128}}) {
    for (const bool with_bias : {true, false}) {
      Fixture f(shape, at::kBFloat16, with_bias);
      const at::Tensor x = f.x_on_gpu();
      for (const LinearMode mode : kSparseModes) {
        f.linear.set_mode(mode, PlanPolicy::kSparse);
        EXPECT_EQ(f.linear.decide(shape.m).why.find("torch"), std::string::npos) << f.linear.decide(shape.m).why;
        const at::Tensor got = f.linear(x);
        ASSERT_EQ(got.sizes(), at::IntArrayRef({shape.m, shape.n}));
        ASSERT_EQ(got.scalar_type(), at::kBFloat16);
        EXPECT_LE(Expected(f, mode, false).worst(got), 1.0)
            << linear_mode_name(mode) << " m=" << shape.m << " n=" << shape.n << " k=" << shape.k;
        EXPECT_TRUE(f.linear(x).equal(got)) << "the same bits again";
      }
    }
  }
}

TEST(LinearOnHopper, OtherShapesAndTypesRunByTorchAndSayWhy) {
  SKIP_WITHOUT_HOPPER();
  struct Case {
    Shape shape;
    at::ScalarType type;
    const char* why;
  };
  for (const Case& c : {Case{{70, 64, 100, 8}, at::kBFloat16, "k must be a multiple of 64"},
                        Case{{70, 20, 128, 8}, at::kBFloat16, "n must be a multiple of 8"},
                        Case{{70, 64, 128, 136}, at::kBFloat16, "the rank must be"},
                        Case{{70, 64, 128, 8}, at::kFloat, "compute in bf16"}}) {
    Fixture f(c.shape, c.type);
    for (const LinearMode mode : kSparseModes) {
      const bool kernels = c.shape.rank > 128 && mode != LinearMode::kSaNcLora;
      f.linear.set_mode(mode, PlanPolicy::kSparse);
      EXPECT_EQ(f.linear.decide(70).why.find(c.why) == std::string::npos, kernels) << f.linear.decide(70).why;
      const at::Tensor got = f.linear(f.x_on_gpu());
      EXPECT_LE(Expected(f, mode, true).worst(got), 1.0) << linear_mode_name(mode) << ", " << c.why;
      EXPECT_TRUE(f.linear(f.x_on_gpu()).equal(got)) << "the same bits again";
      f.linear.set_mode(mode, PlanPolicy::kAuto);
      EXPECT_FALSE(f.linear.decide(4096).sparse) << f.linear.decide(4096).why;
    }
  }
}

TEST(LinearOnHopper, FollowsThePlan) {
  SKIP_WITHOUT_HOPPER();
  Fixture f({64, 4096, 4096, 64});
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kAuto);
  EXPECT_TRUE(f.linear.decide(8192).sparse) << f.linear.decide(8192).why;
  EXPECT_FALSE(f.linear.decide(64).sparse) << f.linear.decide(64).why;
  const at::Tensor x = f.x_on_gpu();
  EXPECT_TRUE(f.linear(x).equal(at::linear(x, f.linear.weight(), f.linear.bias()))) << "dense";
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kRequire);
  EXPECT_THROW(f.linear(x), Error);
}

TEST(LinearOnHopper, TakesViewsAndReplacedParameters) {
  SKIP_WITHOUT_HOPPER();
  Fixture f({96, 128, 256, 16});
  f.linear.set_mode(LinearMode::kSaNc, PlanPolicy::kSparse);  // cuBLAS may sum X L_A of a view in another order
  const at::Tensor x = f.x_on_gpu(), y = f.linear(x);
  EXPECT_TRUE(f.linear(x.view({2, 48, 256})).view({96, 128}).equal(y)) << "three dimensions";
  EXPECT_TRUE(f.linear(at::cat({x, x}, 1).narrow(1, 256, 256)).equal(y)) << "rows further apart";
  EXPECT_TRUE(f.linear(at::cat({x.narrow(1, 0, 1), x}, 1).narrow(1, 1, 256)).equal(y)) << "unaligned";
  EXPECT_TRUE(f.linear(x.t().contiguous().t()).equal(y)) << "columns first";
  EXPECT_EQ(f.linear(x.narrow(0, 0, 0)).sizes(), at::IntArrayRef({0, 128}));
  f.linear.set_mode(LinearMode::kSaNcLora, PlanPolicy::kSparse);
  const at::Tensor with_branch = f.linear(x);
  EXPECT_FALSE(with_branch.equal(y));
  f.linear.set_lora(f.lora_a.to(at::kCUDA), (f.lora_b * 2).to(at::kCUDA));
  EXPECT_FALSE(f.linear(x).equal(with_branch));
  f.linear.set_lora(f.lora_a.to(at::kCUDA), f.lora_b.to(at::kCUDA));
  EXPECT_TRUE(f.linear(x).equal(with_branch));
  f.linear.set_weight(f.linear.weight() * 2);
  EXPECT_FALSE(f.linear(x).equal(with_branch));
}

TEST(LinearOnHopper, FollowsTheCurrentStream) {
  SKIP_WITHOUT_HOPPER();
  Fixture f({512, 1024, 1024, 16});
  f.linear.set_mode(LinearMode::kSaNcLora, PlanPolicy::kSparse);
  const at::Tensor y = f.linear(f.x_on_gpu()).to(at::kCPU);
  const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
  const c10::StreamGuard guard(cuda.getNewStream(at::Device(at::kCUDA, 0)));
  // Milliseconds of work stand before x on this stream: kernels on another one would read too early.
  const at::Tensor early = f.x_on_gpu();
  at::Tensor late = at::zeros({4096, 4096}, f.linear.weight().options());
  for (int i = 0; i < 20; ++i) late = late.matmul(late);
  const at::Tensor x = early + late[0][0];
  EXPECT_TRUE(f.linear(x).to(at::kCPU).equal(y));
}

TEST(OperatorsOnHopper, AreTheLinearInTwoSteps) {
  SKIP_WITHOUT_HOPPER();
  Fixture f({130, 256, 320, 16});
  const at::Tensor x = f.x_on_gpu();
  const auto [blocks, scale] = prune_compress_on_cuda(x);
  const at::Tensor bias = f.linear.bias(), weight = f.linear.weight();
  for (const LinearMode mode : {LinearMode::kSa, LinearMode::kSaNc}) {
    f.linear.set_mode(mode, PlanPolicy::kSparse);
    EXPECT_TRUE(spmm_on_cuda({blocks, scale, weight, bias, {}, {}}, mode != LinearMode::kSa).equal(f.linear(x)));
  }
  f.linear.set_mode(LinearMode::kSaNcLora, PlanPolicy::kSparse);
  const at::Tensor down = at::linear(x, f.lora_a.to(at::kCUDA).t().contiguous());
  const at::Tensor up = f.lora_b.to(at::kCUDA).t();
  EXPECT_TRUE(spmm_on_cuda({blocks, scale, weight, bias, down, up}, true).equal(f.linear(x)));
}

TEST(OperatorsOnHopper, RefuseWhatDoesNotFit) {
  SKIP_WITHOUT_HOPPER();
  Fixture f({130, 256, 320, 16});
  const at::Tensor x = f.x_on_gpu();
  const auto [blocks, scale] = prune_compress_on_cuda(x);
  const at::Tensor weight = f.linear.weight();
  EXPECT_THROW(prune_compress_on_cuda(x.to(at::kFloat)), Error);
  EXPECT_THROW(prune_compress_on_cuda(x.narrow(1, 0, 100)), Error);
  EXPECT_THROW(spmm_on_cuda({blocks.narrow(0, 0, 4608), scale, weight, {}, {}, {}}, true), Error);
  EXPECT_THROW(spmm_on_cuda({blocks, scale.to(at::kBFloat16), weight, {}, {}, {}}, true), Error);
  EXPECT_THROW(spmm_on_cuda({blocks, scale, f.weight, {}, {}, {}}, true), Error) << "a weight on the host";
  EXPECT_THROW(spmm_on_cuda({blocks, scale, weight, {}, x, {}}, true), Error) << "half a branch";
}

}  // namespace
}  // namespace rtlynx
