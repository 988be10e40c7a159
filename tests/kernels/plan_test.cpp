#include "rtlynx/linear.h"

#include <gtest/gtest.h>

namespace rtlynx::test {
namespace {

TEST(Plan, IsPrintable) {
  LinearPlan plan;
  plan.desc = {3072, 12288, DType::kBF16, 64};
  plan.m = 1024;
  plan.machine = {SimdTarget::kAvx512, false, false, 2};
  plan.reason = "why";
  EXPECT_EQ(plan.to_string(), "dense m=1024 n=3072 k=12288 BF16 avx512 2 threads: why");
}

}  // namespace
}  // namespace rtlynx::test
