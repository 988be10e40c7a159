// The plan's rules, each by a case measured in bench/results/linear_cpu.jsonl.
#include <gtest/gtest.h>

#include <cstdlib>

#include "rtlynx/linear.h"

namespace rtlynx::test {
namespace {

constexpr MachineTraits kXeon{SimdTarget::kAvx512, true, false, 1};
constexpr MachineTraits kXeonWithoutAmx{SimdTarget::kAvx512, false, true, 1};
constexpr MachineTraits kZen4{SimdTarget::kAvx512Bf16, false, false, 2};
constexpr MachineTraits kDesktop{SimdTarget::kAvx2, false, false, 2};

LinearDesc f32(int64_t n, int64_t k, int64_t rank = 0) {
  return {n, k, DType::kF32, rank};
}
LinearDesc bf16(int64_t n, int64_t k, int64_t rank = 0) {
  return {n, k, DType::kBF16, rank};
}

void expect(Execution execution, const std::string& part, const LinearDesc& desc, int64_t m,
            const MachineTraits& machine) {
  const LinearPlan plan = plan_linear(desc, m, machine);
  EXPECT_EQ(plan.execution, execution) << plan.to_string();
  EXPECT_NE(plan.reason.find(part), std::string::npos) << plan.to_string();
}

TEST(Plan, IsSparseWhereThatWasMeasuredFaster) {
  using enum Execution;
  expect(kSparse, "x expected", f32(3072, 3072), 1024, kXeon);
  expect(kSparse, "x expected", f32(256, 1024), 288, kXeon);
  expect(kSparse, "x expected", f32(12288, 3072, 64), 512, kXeon);
  expect(kSparse, "1.15x expected", f32(1024, 256, 16), 512, kXeon);  // measured 1.11-1.15
  expect(kSparse, "1.05x expected", f32(256, 1024, 16), 256, kXeon);  // measured 1.055
  expect(kSparse, "1.06x expected", f32(256, 1280, 16), 288, kXeon);  // measured 1.04-1.08
  expect(kSparse, "x expected", bf16(256, 256), 256, kXeonWithoutAmx);
  expect(kSparse, "x expected", bf16(256, 256, 16), 256, kXeonWithoutAmx);
  expect(kSparse, "x expected", bf16(3072, 3072, 64), 1024, kZen4);
  expect(kSparse, "x expected", f32(256, 256), 256, kDesktop);
  expect(kSparse, "x expected", bf16(3072, 3072), 1024, kDesktop);
}

TEST(Plan, IsDenseWhereSparseDoesNotPay) {
  using enum Execution;
  expect(kDense, "AMX", bf16(12288, 3072), 1536, kXeon);
  expect(kDense, "fewer than 4 tokens", f32(3072, 3072), 1, kXeon);
  expect(kDense, "cost too much", f32(64, 1024), 288, kXeon);
  expect(kDense, "0.99x expected", f32(256, 256, 16), 288, kXeon);  // measured 0.99-1.03
  expect(kDense, "cost too much", f32(256, 256, 64), 288, kXeon);
  expect(kDense, "cost too much", f32(48, 1024), 256, kDesktop);
  expect(kDense, "not measured", bf16(3072, 3072), 1024, {SimdTarget::kAvx512, false, false, 1});
  expect(kDense, "plain loops", f32(3072, 3072), 1024, {});
  expect(kDense, "no F16", {3072, 3072, DType::kF16, 0}, 1024, kXeon);
  expect(kDense, "cost too much", f32(0, 0), 16, kXeon);
}

TEST(Plan, IsPrintable) {
  LinearPlan plan;
  plan.desc = bf16(3072, 12288, 64);
  plan.m = 1024;
  plan.machine = {SimdTarget::kAvx512, false, false, 2};
  plan.reason = "why";
  EXPECT_EQ(plan.to_string(), "dense m=1024 n=3072 k=12288 BF16 avx512 2 threads: why");
  EXPECT_EQ(plan_linear(plan.desc, 1024).to_string(), plan_linear(plan.desc, 1024, this_machine()).to_string());
}

TEST(Plan, FollowsTheLimitOfOneDnn) {
  const char* before = std::getenv("ONEDNN_MAX_CPU_ISA");
  const std::string saved = before == nullptr ? "" : before;
  setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", 1);
  EXPECT_FALSE(this_machine().dense_bf16_on_amx);
  setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", 1);
  EXPECT_EQ(this_machine().dense_bf16_on_amx, machine_has_amx_bf16());
  unsetenv("ONEDNN_MAX_CPU_ISA");
  EXPECT_EQ(this_machine().dense_bf16_on_amx, machine_has_amx_bf16());
  if (before != nullptr) setenv("ONEDNN_MAX_CPU_ISA", saved.c_str(), 1);
}

}  // namespace
}  // namespace rtlynx::test
