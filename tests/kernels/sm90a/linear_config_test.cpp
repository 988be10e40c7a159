// Host arithmetic of the whole linear on a Hopper GPU: its plan, its workspace and its checks. Needs no GPU.
#include "kernels/sm90a/linear_config.h"

#include <gtest/gtest.h>

#include "kernels/shapes.h"
#include "kernels/sm90a/layout.h"

namespace rtlynx::sm90a {
namespace {

/// An address that passes every alignment check and is never read.
void* fake(uint64_t index) {
  return reinterpret_cast<void*>(index << 40);
}

TEST(HopperLinearPlan, IsSparseForWhatTheKernelsAreJudgedBy) {
  const auto shapes = read_shapes(RTLYNX_SOURCE_DIR "/shapes/hopper.txt");
  ASSERT_TRUE(shapes.ok()) << shapes.status().to_string();
  ASSERT_EQ(shapes.value().size(), 11U);
  for (const LinearShape& shape : shapes.value()) {
    const LinearPlan plan = plan_linear(shape.m, shape.n, shape.k, 64);
    if (shape.m < 4096) continue;  // near the limit: measurements decide
    EXPECT_EQ(plan.execution, Execution::kSparse) << plan.to_string();
    EXPECT_GE(plan.dense_cycles, plan.sparse_cycles * kLinearCosts.least_speedup) << plan.to_string();
  }
}

TEST(HopperLinearPlan, IsDenseWhereSparseIsNotKnownToPay) {
  const auto reason = [](int64_t m, int64_t n, int64_t k, int64_t rank) {
    const LinearPlan plan = plan_linear(m, n, k, rank);
    EXPECT_EQ(plan.execution, Execution::kDense) << plan.to_string();
    return plan.reason;
  };
  EXPECT_EQ(reason(512, 3072, 3072, 0), "fewer than 1024 rows were never measured to gain");
  EXPECT_EQ(reason(4096, 1024, 3072, 0), "n or k below 2048 were never measured to gain");
  EXPECT_EQ(reason(4096, 3072, 64, 0), "n or k below 2048 were never measured to gain");
  EXPECT_EQ(reason(4096, 3072, 3100, 0), "k must be a multiple of 64 for the Hopper kernels (got 3100)");
  EXPECT_EQ(reason(4096, 3074, 3072, 0), "n must be a multiple of 8 for the Hopper kernels (got 3074)");
  EXPECT_EQ(reason(4096, 3072, 3072, 136),
            "the rank must be a multiple of 8, at most 128, for the Hopper kernels (got 136)");
  EXPECT_EQ(reason(0, 3072, 3072, 0), "m must be in 1..1073741824 (got 0)");
  EXPECT_EQ(reason(4096, int64_t{1} << 40, 3072, 0), "n must be in 1..1073741824 (got 1099511627776)");
  // One row more than a wave of tiles: two waves for little more work.
  EXPECT_NE(reason(1025, 2048, 2048, 0).find("partial waves"), std::string::npos);
}

TEST(HopperLinearPlan, HasAVerdictForEveryLinearOfTheModels) {
  struct Model {
    const char* name;
    double tera_flop;  // of one forward pass
  };
  for (const Model& model : {Model{"flux_1024", 59.5}, Model{"qwen_image", 57.0}, Model{"z_image", 47.8}}) {
    const auto shapes = read_shapes(std::string(RTLYNX_SOURCE_DIR "/shapes/") + model.name + ".txt");
    ASSERT_TRUE(shapes.ok()) << shapes.status().to_string();
    double all = 0, sparse = 0;
    for (const LinearShape& shape : shapes.value()) {
      const LinearPlan plan = plan_linear(shape.m, shape.n, shape.k, 64);
      EXPECT_FALSE(plan.reason.empty());
      const double work = 2e-12 * static_cast<double>(shape.m * shape.n) * static_cast<double>(shape.k * shape.count);
      all += work;
      if (plan.execution == Execution::kSparse) sparse += work;
    }
    EXPECT_NEAR(all, model.tera_flop, 0.05) << model.name;
    EXPECT_GT(sparse, 0.85 * all) << model.name;
  }
}

TEST(HopperLinearPlan, CountsWhatTheBranchCosts) {
  const LinearPlan without = plan_linear(4096, 4096, 3072, 0), with = plan_linear(4096, 4096, 3072, 64);
  EXPECT_GT(with.sparse_cycles, without.sparse_cycles);
  EXPECT_EQ(with.dense_cycles, without.dense_cycles);
}

TEST(HopperLinearPlan, KnowsTheDevice) {
  const LinearPlan small = plan_linear(4096, 4096, 3072, 64, {66}), large = plan_linear(4096, 4096, 3072, 64, {132});
  EXPECT_GT(small.sparse_cycles, large.sparse_cycles);
  EXPECT_GT(small.dense_cycles, large.dense_cycles);
  EXPECT_EQ(plan_linear(4096, 4096, 3072, 64, {0}).execution, Execution::kDense) << "no cluster fits";
}

TEST(HopperLinearPlan, PrintsItself) {
  const LinearPlan plan = plan_linear(4096, 4096, 12288, 64);
  EXPECT_EQ(plan.to_string().rfind("sparse m=4096 n=4096 k=12288 r=64 tile 128x256, ", 0), 0U) << plan.to_string();
  EXPECT_EQ(plan_linear(4096, 3072, 3100, 0).to_string(),
            "dense m=4096 n=3072 k=3100 r=0: k must be a multiple of 64 for the Hopper kernels (got 3100)");
}

TEST(HopperLinearSizes, AreCheckedForAnyM) {
  EXPECT_TRUE(check_linear_sizes(8, 64, 0).ok());
  EXPECT_TRUE(check_linear_sizes(8, 64, 128).ok());
  for (const int64_t rank : {-8, 4, 136}) {
    EXPECT_EQ(check_linear_sizes(8, 64, rank).code(), ErrorCode::kUnsupported) << rank;
  }
  EXPECT_EQ(check_linear_sizes(12, 64, 0).code(), ErrorCode::kUnsupported);
  EXPECT_EQ(check_linear_sizes(8, 32, 0).code(), ErrorCode::kUnsupported);
  EXPECT_EQ(check_linear_sizes(0, 64, 0).code(), ErrorCode::kInvalidArgument);
}

TEST(HopperLinearWorkspace, HoldsBlocksAndScale) {
  const int64_t bytes = linear_workspace_bytes(65, 128).value();
  EXPECT_EQ(bytes, 2 * 2 * kBlockBytes + 4 * 65);
  const MutableCompressedView view = divide_workspace(fake(1), 65, 128, 0).compressed;
  EXPECT_EQ(view.blocks, fake(1));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.scale + 65), reinterpret_cast<uintptr_t>(fake(1)) + bytes);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.scale) % 16, 0U);
  EXPECT_EQ(linear_workspace_bytes(0, 64).status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(linear_workspace_bytes(64, 96).status().code(), ErrorCode::kUnsupported);
}

TEST(HopperLinearWorkspace, HoldsTForFactors) {
  const int64_t bytes = linear_workspace_bytes(65, 128, 24).value();
  const LinearWorkspace parts = divide_workspace(fake(1), 65, 128, 24);
  const auto begin = reinterpret_cast<uintptr_t>(fake(1)), t = reinterpret_cast<uintptr_t>(parts.t.data);
  EXPECT_GE(t, reinterpret_cast<uintptr_t>(parts.compressed.scale + 65));
  EXPECT_EQ(t % 16, 0U);
  EXPECT_EQ(t + 2 * 65 * 24, begin + static_cast<uintptr_t>(bytes));
  EXPECT_EQ(linear_workspace_bytes(65, 128, 12).status().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(linear_workspace_bytes(65, 128, 136).status().code(), ErrorCode::kUnsupported);
}

struct Arguments {
  MatrixView x{fake(1), 100, 128, 136, DType::kBF16};
  MatrixView w{fake(2), 264, 128, 128, DType::kBF16};
  MutableMatrixView y{fake(3), 100, 264, 272, DType::kBF16};
  SpmmOptions options{.bias = {fake(4), 1, 264, 264, DType::kBF16},
                      .lora_down = {fake(5), 100, 64, 64, DType::kBF16},
                      .lora_up = {fake(6), 264, 64, 64, DType::kBF16}};
  void* workspace = fake(7);
  int64_t workspace_bytes = linear_workspace_bytes(100, 128).value();

  MatrixView lora_a{};

  Status check() const { return plan_linear_steps(x, w, y, options, workspace, workspace_bytes, lora_a).status(); }
};

/// The same, with T made while X is pruned.
Arguments with_factors() {
  Arguments args;
  args.options.lora_down = {};
  args.lora_a = {fake(5), 64, 128, 128, DType::kBF16};
  args.workspace_bytes = linear_workspace_bytes(100, 128, 64).value();
  return args;
}

TEST(HopperLinearChecks, AcceptWhatIsDocumented) {
  Arguments args;
  EXPECT_TRUE(args.check().ok()) << args.check().to_string();
  args.options = {.use_scale = false};
  args.workspace_bytes += 1;
  EXPECT_TRUE(args.check().ok()) << args.check().to_string();
}

TEST(HopperLinearChecks, TakeFactorsInsteadOfT) {
  const Arguments args = with_factors();
  const Result<LinearSteps> steps =
      plan_linear_steps(args.x, args.w, args.y, args.options, args.workspace, args.workspace_bytes, args.lora_a);
  ASSERT_TRUE(steps.ok()) << steps.status().to_string();
  EXPECT_EQ(steps.value().lora.lora_a.data, args.lora_a.data);
  EXPECT_EQ(steps.value().options.lora_down.data, steps.value().lora.t.data);
  EXPECT_EQ(steps.value().options.lora_down.cols, 64);

  const auto code = [](auto change) {
    Arguments changed = with_factors();
    change(changed);
    return changed.check().code();
  };
  using A = Arguments;
  const ErrorCode bad = ErrorCode::kInvalidArgument;
  EXPECT_EQ(code([](A& a) { a.options.lora_down = {fake(9), 100, 64, 64, DType::kBF16}; }), bad) << "T twice";
  EXPECT_EQ(code([](A& a) { a.options.lora_up = {}; }), bad);
  EXPECT_EQ(code([](A& a) { --a.workspace_bytes; }), bad) << "no room for T";
  EXPECT_EQ(code([](A& a) { a.lora_a.data = fake(7); }), bad) << "in the workspace";
  EXPECT_EQ(code([](A& a) { a.lora_a.data = static_cast<char*>(fake(5)) + 8; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora_a.rows = 12; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.lora_a.rows = 56; }), bad) << "lora_up has 64";
  EXPECT_EQ(code([](A& a) { a.lora_a.cols = 64; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora_a.data = fake(3); }), bad) << "y";
}

TEST(HopperLinearChecks, RefuseTheRest) {
  const auto code = [](auto change) {
    Arguments args;
    change(args);
    return args.check().code();
  };
  using A = Arguments;
  const ErrorCode bad = ErrorCode::kInvalidArgument;
  EXPECT_EQ(code([](A& a) { a.workspace = nullptr; }), bad);
  EXPECT_EQ(code([](A& a) { a.workspace = static_cast<char*>(fake(7)) + 8; }), bad);
  EXPECT_EQ(code([](A& a) { --a.workspace_bytes; }), bad);
  EXPECT_EQ(code([](A& a) { a.x.data = nullptr; }), bad);
  EXPECT_EQ(code([](A& a) { a.x.rows = 99; }), bad) << "y has 100";
  EXPECT_EQ(code([](A& a) { a.x.cols = 96; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.w.rows = 260; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.w.cols = 64; }), bad);
  EXPECT_EQ(code([](A& a) { a.options.lora_up = {}; }), bad);
  EXPECT_EQ(code([](A& a) { a.y.data = fake(1); }), bad) << "x";
  EXPECT_EQ(code([](A& a) { a.options.gate = {fake(7), 1, 264, 264, DType::kBF16}; }), bad) << "without residual";
  const auto gated = [](A& a, uint64_t gate, uint64_t residual) {
    a.options.gate = {fake(gate), 1, 264, 264, DType::kBF16};
    a.options.residual = {fake(residual), 100, 264, 272, DType::kBF16};
  };
  EXPECT_EQ(code([&](A& a) { gated(a, 8, 9); }), ErrorCode::kOk);
  EXPECT_EQ(code([&](A& a) { gated(a, 8, 3); }), ErrorCode::kOk) << "y is its own residual";
  EXPECT_EQ(code([&](A& a) { gated(a, 7, 9); }), bad) << "the gate in the workspace";
  EXPECT_EQ(code([&](A& a) { gated(a, 8, 7); }), bad) << "the residual in the workspace";
  for (const uint64_t operand : {1, 2, 3, 4, 5, 6}) {
    EXPECT_EQ(code([&](A& a) { a.workspace = fake(operand); }), bad) << operand;
  }
}

}  // namespace
}  // namespace rtlynx::sm90a
