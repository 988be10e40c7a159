// Host arithmetic of prune_compress_lora: shared memory, argument checks. Needs no GPU.
#include <gtest/gtest.h>

#include <utility>

#include "kernels/sm90a/prune_lora_config.h"

namespace rtlynx::sm90a {
namespace {

/// An address that passes every alignment check and is never read.
void* fake(uint64_t index) {
  return reinterpret_cast<void*>(index << 40);
}

TEST(PruneLora, ComputesTheRankRoundedUp) {
  const std::pair<int64_t, int> wanted[] = {{8, 32}, {32, 32}, {40, 64}, {64, 64}, {72, 128}, {128, 128}};
  for (const auto& [rank, columns] : wanted) EXPECT_EQ(lora_columns(rank), columns);
}

TEST(PruneLora, FitsTheMachine) {
  for (const int columns : {32, 64, 128}) {
    // 228 KiB a multiprocessor, 1 KiB of it the system's for each CTA.
    EXPECT_LE(lora_ctas_per_sm(columns) * (lora_shared_bytes(columns) + 1024), 228 * 1024);
    EXPECT_GE(lora_stages(columns), 3);
    EXPECT_EQ(lora_stage_bytes(columns) % 1024, 0) << "the swizzle repeats every 1024 bytes";
    EXPECT_EQ(lora_t_pitch(columns) % 4, 0) << "rows of T are read 16 bytes at a time";
    EXPECT_EQ(lora_t_offset(columns) % 16, 0);
    EXPECT_EQ(lora_barriers_offset(columns) % 8, 0);
    EXPECT_LE(kLoraOwnedRows * columns / 8, kLoraThreads) << "a thread for every 8 columns of 16 rows";
    EXPECT_LT(lora_sums_bytes(columns), 1 << 20) << "what a barrier can count";
  }
  EXPECT_EQ(kLoraOwnedRows, 16) << "a warp's rows belong to one CTA";
}

struct Arguments {
  MatrixView x{fake(1), 100, 192, 200, DType::kBF16};
  MutableCompressedView out{fake(2), static_cast<float*>(fake(3)), 100, 192};
  LoraDown lora{{fake(4), 24, 192, 192, DType::kBF16}, {fake(5), 100, 24, 32, DType::kBF16}};
};

TEST(PruneLora, Plans) {
  const Arguments args;
  const Result<PruneLoraPlan> plan = plan_prune_compress_lora(args.x, args.out, args.lora);
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  EXPECT_EQ(plan.value().m, 100);
  EXPECT_EQ(plan.value().k_blocks, 3);
  EXPECT_EQ(plan.value().ctas, 8);
  EXPECT_EQ(plan.value().rank, 24);
  EXPECT_EQ(plan.value().columns, 32);
}

TEST(PruneLora, RefusesWhatItCannotDo) {
  const auto code = [](auto change) {
    Arguments args;
    change(args);
    return plan_prune_compress_lora(args.x, args.out, args.lora).status().code();
  };
  using A = Arguments;
  const ErrorCode bad = ErrorCode::kInvalidArgument;
  EXPECT_EQ(code([](A& a) { a.x.data = nullptr; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.lora_a.data = nullptr; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.lora_a.data = static_cast<char*>(fake(4)) + 8; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.t.data = nullptr; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.t.rows = 99; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.lora_a.rows = 32; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.lora_a.cols = 128; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.t.row_stride = 28; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.t.dtype = DType::kF16; }), bad);
  EXPECT_EQ(code([](A& a) { a.lora.t.cols = 20; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.lora.t.cols = 136; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.x.cols = a.out.k = 96; }), ErrorCode::kUnsupported);
  for (const uint64_t other : {1, 2, 3, 4}) {
    EXPECT_EQ(code([&](A& a) { a.lora.t.data = fake(other); }), bad) << "t is " << other;
  }
  for (const uint64_t other : {2, 3}) {
    EXPECT_EQ(code([&](A& a) { a.lora.lora_a.data = fake(other); }), bad) << "lora_a is " << other;
  }
}

}  // namespace
}  // namespace rtlynx::sm90a
