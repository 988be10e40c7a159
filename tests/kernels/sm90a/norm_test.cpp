// norm_modulate_prune_compress without a GPU: the order of its arithmetic against fp64, and its argument checks.
#include <gtest/gtest.h>

#include "kernels/sm90a/norm_modulate_config.h"
#include "norm_oracle.h"

namespace rtlynx::test {
namespace {

NormInputs inputs(int64_t m, int64_t k, int64_t images, bool layer_norm) {
  return {make_matrix(m, k, Fill::kGaussian, 1), make_matrix(1, k, Fill::kGaussian, 2),
          make_matrix(images, k, Fill::kGaussian, 3), make_matrix(images, k, Fill::kGaussian, 4), layer_norm};
}

TEST(NormModulate, DocumentedOrderStaysNearFp64) {
  for (const bool layer_norm : {true, false}) {
    for (const int64_t k : {64, 256, 320, 3072, 3840}) {
      for (const int ctas : {4, 8}) {
        NormInputs in = inputs(6, k, 3, layer_norm);
        const HostMatrix y = norm_modulate_in_kernel_order(in, ctas);
        EXPECT_EQ(check_norm_modulate(in, y), "") << k;
        EXPECT_EQ(check_scales(y, norm_scales_in_kernel_order(y, ctas)), "") << k;
        in.weight = in.scale = in.shift = {};
        EXPECT_EQ(check_norm_modulate(in, norm_modulate_in_kernel_order(in, ctas)), "") << k;
      }
    }
  }
}

TEST(NormModulate, AMeanFarFromZeroIsTakenOff) {
  NormInputs in = inputs(2, 1024, 1, true);
  for (std::size_t i = 0; i < in.x.bits.size(); ++i) in.x.bits[i] = bf16_from_float(64.0f + static_cast<float>(i % 7));
  EXPECT_EQ(check_norm_modulate(in, norm_modulate_in_kernel_order(in, 4)), "");
}

TEST(NormModulate, CheckerFindsAWrongElement) {
  const NormInputs in = inputs(2, 128, 1, true);
  HostMatrix y = norm_modulate_in_kernel_order(in, 4);
  y.at(1, 127) = static_cast<uint16_t>(y.at(1, 127) + 2);
  EXPECT_NE(check_norm_modulate(in, y), "");
}

void* fake(uint64_t index) {
  return reinterpret_cast<void*>(index << 32);
}

struct Arguments {
  MatrixView x{fake(1), 100, 128, 136, DType::kBF16};
  sm90a::MutableCompressedView out{fake(2), static_cast<float*>(fake(3)), 100, 128};
  sm90a::NormModulateOptions options{
      .weight = {fake(4), 1, 128, 128, DType::kBF16},
      .scale = {fake(5), 2, 128, 768, DType::kBF16},
      .shift = {fake(6), 2, 128, 768, DType::kBF16},
      .dense = {fake(7), 100, 128, 128, DType::kBF16},
      .lora = {{fake(8), 24, 128, 128, DType::kBF16}, {fake(9), 100, 24, 24, DType::kBF16}}};
};

template <typename Change>
ErrorCode code(const Change& change) {
  Arguments args;
  change(args);
  return sm90a::plan_norm_modulate(args.x, args.out, args.options).status().code();
}

TEST(NormModulateChecks, AcceptWhatIsDocumented) {
  Arguments args;
  const auto plan = sm90a::plan_norm_modulate(args.x, args.out, args.options);
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  EXPECT_EQ(plan.value().tiles, 8);
  EXPECT_EQ(plan.value().columns, 32);
  EXPECT_EQ(plan.value().tokens_per_image, 50);
  EXPECT_EQ(code([](Arguments& a) { a.options = {}; }), ErrorCode::kOk);
  EXPECT_EQ(code([](Arguments& a) { a.options.norm = sm90a::Norm::kRmsNorm; }), ErrorCode::kOk);
}

TEST(NormModulateChecks, RefuseTheRest) {
  using A = Arguments;
  EXPECT_EQ(code([](A& a) { a.x.rows = 99; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.x.dtype = DType::kF16; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.scale = nullptr; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.k = a.x.cols = 96; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.out.k = a.x.cols = a.x.row_stride = sm90a::kNormMaxK + 64; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.options.eps = -1; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.weight.rows = 2; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.scale.rows = 3; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.scale.rows = 4; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.shift.cols = 64; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.shift.row_stride = 132; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.dense.rows = 99; }), ErrorCode::kInvalidArgument);
  for (const uint64_t operand : {1, 4, 5, 6}) {
    EXPECT_EQ(code([&](A& a) { a.out.blocks = fake(operand); }), ErrorCode::kInvalidArgument) << operand;
    EXPECT_EQ(code([&](A& a) { a.out.scale = static_cast<float*>(fake(operand)); }), ErrorCode::kInvalidArgument);
    EXPECT_EQ(code([&](A& a) { a.options.dense.data = fake(operand); }), ErrorCode::kInvalidArgument) << operand;
  }
  for (const uint64_t operand : {1, 2, 3, 4, 5, 6, 7, 8}) {
    EXPECT_EQ(code([&](A& a) { a.options.lora.t.data = fake(operand); }), ErrorCode::kInvalidArgument) << operand;
  }
  EXPECT_EQ(code([](A& a) { a.options.lora.lora_a = {}; }), ErrorCode::kInvalidArgument) << "T alone";
  EXPECT_EQ(code([](A& a) { a.options.lora.t = {}; }), ErrorCode::kUnsupported) << "no rank";
  EXPECT_EQ(code([](A& a) { a.options.lora.t.cols = 12; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.options.dense.data = a.out.blocks; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.scale = static_cast<float*>(a.out.blocks); }), ErrorCode::kInvalidArgument);
}

TEST(NormModulateConfig, FitsTheMachine) {
  for (int64_t k = 64; k <= sm90a::kNormMaxK; k += 64) {
    for (const int64_t rank : {0, 16, 64, 128}) {
      const MatrixView x{fake(1), 100, k, k, DType::kBF16};
      sm90a::NormModulateOptions options;
      if (rank > 0) options.lora = {{fake(8), rank, k, k, DType::kBF16}, {fake(9), 100, rank, rank, DType::kBF16}};
      const auto plan = sm90a::plan_norm_modulate(x, {fake(2), static_cast<float*>(fake(3)), 100, k}, options);
      if (!plan.ok()) {
        EXPECT_EQ(plan.status().code(), ErrorCode::kUnsupported) << k;
        EXPECT_GT(k, rank == 0 ? sm90a::kNormMaxK : rank <= 32 ? 8192 : rank <= 64 ? 5632 : 3584) << rank;
        continue;
      }
      const sm90a::NormMemory& memory = plan.value().memory;
      EXPECT_LE(memory.bytes, 232448) << k;
      EXPECT_EQ(memory.stage_bytes % 1024, 0) << "the swizzle repeats every 1024 bytes";
      EXPECT_EQ(memory.lora_a % 1024, 0);
      EXPECT_GE(plan.value().stages, sm90a::kNormLeastStages) << k << " rank " << rank;
      EXPECT_EQ(sm90a::kNormRows % plan.value().ctas, 0);
    }
  }
}

TEST(NormModulateConfig, HasTilesAheadForTheModels) {
  for (const int64_t k : {3072, 3840}) {
    const MatrixView x{fake(1), 100, k, k, DType::kBF16};
    sm90a::NormModulateOptions options{
        .lora = {{fake(8), 64, k, k, DType::kBF16}, {fake(9), 100, 64, 64, DType::kBF16}}};
    const auto plan = sm90a::plan_norm_modulate(x, {fake(2), static_cast<float*>(fake(3)), 100, k}, options);
    ASSERT_TRUE(plan.ok()) << plan.status().to_string();
    EXPECT_GE(plan.value().stages, sm90a::kNormLeastStages);
  }
}

}  // namespace
}  // namespace rtlynx::test
