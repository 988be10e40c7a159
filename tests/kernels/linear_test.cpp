// The whole linear and spmm against its definition in fp64, over shapes/edge.txt, for every back end and SIMD target.
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "kernels/bf16.h"
#include "kernels/shapes.h"
#include "tests/kernels/support.h"

namespace rtlynx::test {
namespace {

struct Case {
  Backend backend;
  SimdTarget target;
  DType dtype;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    all.push_back({Backend::kReference, SimdTarget::kPortable, dtype});
    for (const SimdTarget target : supported_simd_targets()) all.push_back({Backend::kCpu, target, dtype});
  }
  return all;
}

std::string name_of(const Case& c) {
  return std::string(backend_name(c.backend)) + " " + std::string(simd_target_name(c.target)) + " " +
         std::string(dtype_name(c.dtype));
}

std::vector<LinearShape> edge_shapes() {
  auto shapes = read_shapes(RTLYNX_SOURCE_DIR "/shapes/edge.txt");
  EXPECT_TRUE(shapes.ok()) << shapes.status().to_string();
  return shapes.ok() ? shapes.value() : std::vector<LinearShape>{};
}

/// x, W, bias and a low-rank branch; gaussian, or integers for exact sums.
struct Problem {
  Problem(const LinearShape& shape, DType dtype, int64_t rank, bool is_exact, std::mt19937& random)
      : x(make(shape.m, shape.k, dtype, is_exact, random)),
        weight(make(shape.n, shape.k, dtype, is_exact, random)),
        bias(make(1, shape.n, DType::kF32, is_exact, random)),
        lora_a(make(shape.k, rank, DType::kBF16, is_exact, random)),
        lora_b(make(rank, shape.n, DType::kBF16, is_exact, random)),
        has_lora(rank > 0 && shape.k > 0 && shape.n > 0) {}

  static Matrix make(int64_t rows, int64_t cols, DType dtype, bool is_exact, std::mt19937& random) {
    return is_exact ? integers(rows, cols, dtype, random, 3) : gaussian(rows, cols, dtype, random);
  }
  SparseLinear::Parameters parameters(bool with_bias = true) const {
    SparseLinear::Parameters p{weight.view()};
    if (with_bias && weight.rows() > 0) p.bias = bias.view();
    if (has_lora) p.lora_a = lora_a.view();
    if (has_lora) p.lora_b = lora_b.view();
    return p;
  }
  Operands operands(bool with_bias = true) const {
    return {&x, &weight, with_bias ? &bias : nullptr, has_lora ? &lora_a : nullptr, has_lora ? &lora_b : nullptr};
  }

  Matrix x, weight, bias, lora_a, lora_b;
  bool has_lora;
};

Matrix run(const SparseLinear& linear, const Matrix& x, const EpilogueOptions& options = {}) {
  Matrix y(x.rows(), linear.n(), x.dtype(), 5);
  const Status status = linear.run(x.view(), y.mutable_view(), options);
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_TRUE(y.zones_are_intact());
  return y;
}

std::vector<double> rounded_to(DType dtype, std::vector<double> values) {
  for (double& value : values) {
    const auto single = static_cast<float>(value);
    value = static_cast<double>(dtype == DType::kF32 ? single : float_from_bf16(bf16_from_float(single)));
  }
  return values;
}

TEST(Linear, IsExactOnSmallIntegersForEveryEdgeShape) {
  for (const Case& c : cases()) {
    const ForcedTarget forced(c.target);
    std::mt19937 random(1);
    int number = 0;
    for (const LinearShape& shape : edge_shapes()) {
      SCOPED_TRACE(name_of(c) + ": " + shape.where);
      const Problem problem(shape, c.dtype, number % 3 == 0 ? 0 : 1 + number, true, random);
      const bool with_bias = number++ % 2 == 0;
      const auto linear = SparseLinear::create(problem.parameters(with_bias), c.backend);
      ASSERT_TRUE(linear.ok()) << linear.status().to_string();
      const EpilogueOptions options{.use_scale = false};
      const Expected expected = expected_linear(problem.operands(with_bias), options);
      const std::vector<double> none(expected.y.size(), 0.0);
      const Matrix y = run(linear.value(), problem.x, options);
      EXPECT_EQ(find_difference(y, rounded_to(c.dtype, expected.y), none, shape.n * shape.k < 9), "");
    }
  }
}

TEST(Linear, StaysWithinTheBoundOnGaussianValuesForEveryEdgeShape) {
  for (const Case& c : cases()) {
    const ForcedTarget forced(c.target);
    std::mt19937 random(2);
    for (const LinearShape& shape : edge_shapes()) {
      SCOPED_TRACE(name_of(c) + ": " + shape.where);
      const Problem problem(shape, c.dtype, 5, false, random);
      const auto linear = SparseLinear::create(problem.parameters(), c.backend);
      ASSERT_TRUE(linear.ok()) << linear.status().to_string();
      const Expected expected = expected_linear(problem.operands(), {});
      const Matrix y = run(linear.value(), problem.x);
      EXPECT_EQ(find_difference(y, expected.y, bound_of(expected, shape.k + 5, c.dtype), shape.k == 0), "");
    }
  }
}

TEST(Linear, HoldsForTheSizesOfAModel) {
  for (const Case& c : cases()) {
    if (c.backend == Backend::kReference) continue;
    const ForcedTarget forced(c.target);
    std::mt19937 random(3);
    const Problem problem({70, 400, 1280, 1, ""}, c.dtype, 64, false, random);
    const auto linear = SparseLinear::create(problem.parameters(), c.backend);
    ASSERT_TRUE(linear.ok());
    const Expected expected = expected_linear(problem.operands(), {});
    EXPECT_EQ(find_difference(run(linear.value(), problem.x), expected.y, bound_of(expected, 1280 + 64, c.dtype)), "")
        << name_of(c);
  }
}

TEST(Linear, SwitchesPartsOff) {
  std::mt19937 random(4);
  for (const Case& c : cases()) {
    const ForcedTarget forced(c.target);
    const Problem problem({9, 50, 44, 1, ""}, c.dtype, 16, false, random);
    const auto linear = SparseLinear::create(problem.parameters(), c.backend);
    ASSERT_TRUE(linear.ok());
    for (const EpilogueOptions options : {EpilogueOptions{true, true}, EpilogueOptions{true, false},
                                          EpilogueOptions{false, true}, EpilogueOptions{false, false}}) {
      const Expected expected = expected_linear(problem.operands(), options);
      EXPECT_EQ(find_difference(run(linear.value(), problem.x, options), expected.y, bound_of(expected, 60, c.dtype)),
                "")
          << name_of(c) << options.use_scale << options.use_lora;
    }
  }
}

TEST(Linear, GivesTheSameBitsAgainForAnyThreadCountAndAnyBatch) {
  std::mt19937 random(5);
  for (const Case& c : cases()) {
    const ForcedTarget forced(c.target);
    const Problem problem({600, 300, 336, 1, ""}, c.dtype, 20, false, random);
    const auto linear = SparseLinear::create(problem.parameters(), c.backend);
    ASSERT_TRUE(linear.ok());
    ASSERT_TRUE(set_num_threads(1).ok());
    const std::vector<uint8_t> bits = run(linear.value(), problem.x).bits();
    EXPECT_EQ(run(linear.value(), problem.x).bits(), bits) << name_of(c);
    for (const int threads : {2, 3, 5}) {
      ASSERT_TRUE(set_num_threads(threads).ok());
      EXPECT_EQ(run(linear.value(), problem.x).bits(), bits) << name_of(c) << ", " << threads << " threads";
    }
    ASSERT_TRUE(set_num_threads(0).ok());
    Matrix one(1, 336, c.dtype);
    for (int64_t j = 0; j < 336; ++j) one.set(0, j, problem.x.at(597, j));
    const std::size_t row_bytes = bits.size() / 600;
    EXPECT_EQ(run(linear.value(), one).bits(),
              std::vector<uint8_t>(bits.begin() + 597 * row_bytes, bits.begin() + 598 * row_bytes))
        << name_of(c);
  }
}

TEST(Linear, MayRunFromSeveralThreads) {
  std::mt19937 random(6);
  const Problem problem({90, 140, 260, 1, ""}, DType::kF32, 8, false, random);
  const auto linear = SparseLinear::create(problem.parameters());
  ASSERT_TRUE(linear.ok());
  const std::vector<uint8_t> bits = run(linear.value(), problem.x).bits();
  std::vector<std::vector<uint8_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& result : got) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) result = run(linear.value(), problem.x).bits();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : got) EXPECT_EQ(result, bits);
}

TEST(Linear, KeepsNonFiniteTokensToThemselves) {
  std::mt19937 random(8);
  for (const Case& c : cases()) {
    const ForcedTarget forced(c.target);
    Problem problem({5, 20, 32, 1, ""}, c.dtype, 0, false, random);
    problem.x.set(1, 7, std::numeric_limits<float>::quiet_NaN());
    problem.x.set(3, 30, std::numeric_limits<float>::infinity());
    for (int64_t j = 0; j < 32; ++j) problem.x.set(4, j, 0.0f);
    const auto linear = SparseLinear::create(problem.parameters(false), c.backend);
    ASSERT_TRUE(linear.ok());
    const Matrix y = run(linear.value(), problem.x);
    for (int64_t j = 0; j < 20; ++j) {
      EXPECT_TRUE(std::isfinite(y.at(0, j)) && std::isfinite(y.at(2, j))) << name_of(c);
      EXPECT_TRUE(std::isnan(y.at(1, j))) << name_of(c);
      EXPECT_TRUE(std::isnan(y.at(3, j))) << name_of(c) << ": Inf / Inf in the scale";
      EXPECT_EQ(y.at(4, j), 0.0f) << name_of(c);
    }
  }
}

TEST(Linear, NeverMultipliesPaddingWithWeights) {
  // W holds Inf in every column but those kept: dropped elements and the padding of k must not turn it into NaN.
  for (const Case& c : cases()) {
    const ForcedTarget forced(c.target);
    Matrix x(2, 9, c.dtype), weight(3, 9, c.dtype);
    for (int64_t k = 0; k < 9; ++k) {
      for (int64_t i = 0; i < 2; ++i) x.set(i, k, k % 4 < 2 ? 2.0f : 1.0f);
      for (int64_t j = 0; j < 3; ++j) weight.set(j, k, k % 4 < 2 ? 1.0f : std::numeric_limits<float>::infinity());
    }
    const auto linear = SparseLinear::create({weight.view()}, c.backend);
    ASSERT_TRUE(linear.ok());
    const Matrix y = run(linear.value(), x, {.use_scale = false});
    for (int64_t j = 0; j < 3; ++j) EXPECT_EQ(y.at(1, j), 10.0f) << name_of(c);
  }
}

TEST(Spmm, EqualsTheLinearBitForBit) {
  std::mt19937 random(9);
  for (const Case& c : cases()) {
    const ForcedTarget forced(c.target);
    for (const LinearShape& shape : edge_shapes()) {
      SCOPED_TRACE(name_of(c) + ": " + shape.where);
      const Problem problem(shape, c.dtype, 7, false, random);
      const auto parameters = problem.parameters();
      const auto linear = SparseLinear::create(parameters, c.backend);
      const auto weight = PackedWeight::pack({parameters.weight, parameters.bias, parameters.lora_b}, c.backend);
      const auto compressed = prune_compress(problem.x.view(), parameters.lora_a, c.backend);
      ASSERT_TRUE(linear.ok() && weight.ok() && compressed.ok());
      Matrix y(shape.m, shape.n, c.dtype, 2);
      const Status status = spmm(compressed.value(), weight.value(), y.mutable_view());
      ASSERT_TRUE(status.ok()) << status.to_string();
      EXPECT_EQ(y.bits(), run(linear.value(), problem.x).bits());
      EXPECT_TRUE(y.zones_are_intact());
    }
  }
}

TEST(Spmm, StaysInBoundsWithHostileMetadata) {
  std::mt19937 random(10);
  for (const Case& c : cases()) {
    const ForcedTarget forced(c.target);
    const Problem problem({6, 30, 45, 1, ""}, c.dtype, 0, false, random);
    auto compressed = prune_compress(problem.x.view(), {}, c.backend);
    const auto weight = PackedWeight::pack({problem.weight.view()}, c.backend);
    ASSERT_TRUE(compressed.ok() && weight.ok());
    auto* metadata = reinterpret_cast<uint8_t*>(compressed.value().metadata.get());
    for (int64_t i = 0; i < 6 * compressed.value().groups(); ++i) metadata[i] = static_cast<uint8_t>(random());
    Matrix y(6, 30, c.dtype);
    EXPECT_TRUE(spmm(compressed.value(), weight.value(), y.mutable_view()).ok());
    EXPECT_TRUE(y.zones_are_intact());
  }
}

TEST(Checker, FindsPlantedErrors) {
  std::mt19937 random(12);
  const Problem problem({40, 70, 128, 1, ""}, DType::kF32, 0, false, random);
  const auto linear = SparseLinear::create(problem.parameters());
  ASSERT_TRUE(linear.ok());
  const Expected expected = expected_linear(problem.operands(), {});
  const std::vector<double> bound = bound_of(expected, 128, DType::kF32);
  const Matrix y = run(linear.value(), problem.x);
  ASSERT_EQ(find_difference(y, expected.y, bound), "");
  const auto with = [&](auto&& plant) {
    Matrix broken = y;
    plant(broken);
    return find_difference(broken, expected.y, bound);
  };
  EXPECT_NE(with([](Matrix& b) { b.set(39, 69, b.at(39, 69) * 1.001f); }), "");
  EXPECT_NE(with([](Matrix& b) { b.set(0, 0, -b.at(0, 0)); }), "");
  EXPECT_NE(with([](Matrix& b) { b.set(7, 3, std::numeric_limits<float>::quiet_NaN()); }), "");
  EXPECT_NE(with([](Matrix& b) { b.set(7, 3, std::numeric_limits<float>::infinity()); }), "");
  EXPECT_NE(with([](Matrix& b) { b.set(7, 3, 0.0f); }), "");
  EXPECT_NE(with([](Matrix& b) {
              const float first = b.at(5, 5);
              b.set(5, 5, b.at(6, 5));
              b.set(6, 5, first);
            }),
            "");
  Matrix outside = y;
  static_cast<float*>(outside.mutable_view().data)[70] = 1.0f;
  EXPECT_FALSE(outside.zones_are_intact());
  Matrix zero(2, 2, DType::kF32);
  for (int i = 0; i < 4; ++i) zero.set(i / 2, i % 2, 0.0f);
  EXPECT_NE(find_difference(zero, {0, 0, 0, 0}, {0, 0, 0, 0}), "") << "an all-zero pass proves nothing";
}

}  // namespace
}  // namespace rtlynx::test
