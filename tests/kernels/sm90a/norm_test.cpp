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
      NormInputs in = inputs(6, k, 3, layer_norm);
      EXPECT_EQ(check_norm_modulate(in, norm_modulate_in_kernel_order(in)), "") << k;
      in.weight = in.scale = in.shift = {};
      EXPECT_EQ(check_norm_modulate(in, norm_modulate_in_kernel_order(in)), "") << k;
    }
  }
}

TEST(NormModulate, AMeanFarFromZeroIsTakenOff) {
  NormInputs in = inputs(2, 1024, 1, true);
  for (std::size_t i = 0; i < in.x.bits.size(); ++i) in.x.bits[i] = bf16_from_float(64.0f + static_cast<float>(i % 7));
  EXPECT_EQ(check_norm_modulate(in, norm_modulate_in_kernel_order(in)), "");
}

TEST(NormModulate, CheckerFindsAWrongElement) {
  const NormInputs in = inputs(2, 128, 1, true);
  HostMatrix y = norm_modulate_in_kernel_order(in);
  y.at(1, 127) = static_cast<uint16_t>(y.at(1, 127) + 2);
  EXPECT_NE(check_norm_modulate(in, y), "");
}

void* fake(uint64_t index) {
  return reinterpret_cast<void*>(index << 32);
}

struct Arguments {
  MatrixView x{fake(1), 100, 128, 136, DType::kBF16};
  sm90a::MutableCompressedView out{fake(2), static_cast<float*>(fake(3)), 100, 128};
  sm90a::NormModulateOptions options{.weight = {fake(4), 1, 128, 128, DType::kBF16},
                                     .scale = {fake(5), 2, 128, 768, DType::kBF16},
                                     .shift = {fake(6), 2, 128, 768, DType::kBF16},
                                     .dense = {fake(7), 100, 128, 128, DType::kBF16}};
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
  EXPECT_EQ(plan.value().ctas, 16);
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
  EXPECT_EQ(code([](A& a) { a.options.dense.data = a.out.blocks; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.scale = static_cast<float*>(a.out.blocks); }), ErrorCode::kInvalidArgument);
}

TEST(NormModulateConfig, FitsTheMachine) {
  EXPECT_LE(sm90a::norm_shared_bytes(sm90a::kNormMaxK) + 1024, 232448);
  EXPECT_LE(sm90a::kNormCtasPerSm * (sm90a::norm_shared_bytes(3072) + 2048), 233472);
  // Rows two apart in a quarter warp must not share a bank: an odd multiple of 16 bytes from one to the next.
  for (int k = 64; k <= sm90a::kNormMaxK; k += 64) EXPECT_EQ(sm90a::norm_row_pitch(k) % 32, 16);
}

}  // namespace
}  // namespace rtlynx::test
