// Every Status of the kernel library, with the argument it names; failing allocations at every position.
#include <fstream>
#include <limits>

#include "core/alloc.h"
#include "kernels/shapes.h"
#include "tests/kernels/support.h"

namespace rtlynx::test {
namespace {

void expect_error(const Status& status, ErrorCode code, const std::string& part) {
  EXPECT_EQ(status.code(), code) << status.to_string();
  EXPECT_NE(status.message().find(part), std::string::npos) << status.to_string();
}

class Errors : public ::testing::Test {
 protected:
  std::mt19937 random{1};
  Matrix x = gaussian(4, 24, DType::kF32, random);
  Matrix weight = gaussian(6, 24, DType::kF32, random);
  Matrix bias = gaussian(1, 6, DType::kF32, random);
  Matrix lora_a = gaussian(24, 3, DType::kF32, random);
  Matrix lora_b = gaussian(3, 6, DType::kF32, random);
  Matrix y{4, 6, DType::kF32};
  SparseLinear::Parameters parameters{weight.view(), bias.view(), lora_a.view(), lora_b.view()};
};

TEST_F(Errors, OfViews) {
  const auto linear = SparseLinear::create(parameters);
  ASSERT_TRUE(linear.ok());
  const auto run = [&](MatrixView input, MutableMatrixView output) { return linear.value().run(input, output); };
  const auto with = [](auto view, auto&& change) {
    change(view);
    return view;
  };
  using enum ErrorCode;
  expect_error(run(with(x.view(), [](auto& v) { v.cols = 23; }), y.mutable_view()), kInvalidArgument,
               "linear: x must be any x 24 (got 4 x 23)");
  expect_error(run(with(x.view(), [](auto& v) { v.rows = -1; }), y.mutable_view()), kInvalidArgument, "negative");
  expect_error(run(with(x.view(), [](auto& v) { v.row_stride = 23; }), y.mutable_view()), kInvalidArgument,
               "row_stride of at least 24 (got 23)");
  expect_error(run(with(x.view(), [](auto& v) { v.data = nullptr; }), y.mutable_view()), kInvalidArgument, "no data");
  expect_error(run(with(x.view(), [](auto& v) { v.dtype = DType::kF16; }), y.mutable_view()), kUnsupported,
               "x must be F32 or BF16 (got F16)");
  expect_error(run(with(x.view(), [](auto& v) { v.dtype = DType::kBF16; }), y.mutable_view()), kInvalidArgument,
               "x must be F32 like the weight (got BF16)");
  expect_error(
      run(with(x.view(), [](auto& v) { v.row_stride = std::numeric_limits<int64_t>::max() / 2; }), y.mutable_view()),
      kOverflow, "x of 4 rows");
  expect_error(run(with(x.view(), [](auto& v) { v.data = static_cast<const char*>(v.data) + 1; }), y.mutable_view()),
               kInvalidArgument, "aligned");
  expect_error(run(x.view(), with(y.mutable_view(), [](auto& v) { v.rows = 3; })), kInvalidArgument,
               "y must be 4 x 6 (got 3 x 6)");
  expect_error(run(x.view(), with(y.mutable_view(), [](auto& v) { v.dtype = DType::kBF16; })), kInvalidArgument,
               "y must be F32");
  MutableMatrixView overlapping = x.mutable_view();
  overlapping.cols = 6;
  expect_error(run(x.view(), overlapping), kInvalidArgument, "x and y overlap");
  EXPECT_TRUE(run(x.view(), y.mutable_view()).ok());
}

TEST_F(Errors, OfParameters) {
  using enum ErrorCode;
  const auto create = [&](auto&& change) {
    SparseLinear::Parameters p = parameters;
    change(p);
    return SparseLinear::create(p).status();
  };
  expect_error(create([](auto& p) { p.weight.dtype = DType::kI8; }), kUnsupported, "weight must be F32 or BF16");
  expect_error(create([](auto& p) { p.bias.cols = 5; }), kInvalidArgument, "bias must be 1 x 6 (got 1 x 5)");
  expect_error(create([](auto& p) { p.lora_a.rows = 23; }), kInvalidArgument, "lora_a must be 24 x any (got 23 x 3)");
  expect_error(create([](auto& p) { p.lora_a.cols = 2; }), kInvalidArgument, "one rank (got 2 and 3)");
  expect_error(create([](auto& p) { p.lora_a.data = nullptr; }), kInvalidArgument, "one rank (got 0 and 3)");
  expect_error(create([](auto& p) { p.lora_b.cols = 7; }), kInvalidArgument, "lora_b must be any x 6");
  expect_error(create([](auto& p) { p.lora_b.rows = 0; }), kInvalidArgument, "rank in 1..1024 (got 0)");
  expect_error(create([](auto& p) {
                 p.lora_a.cols = 0;
                 p.lora_a.row_stride = 0;
               }),
               kInvalidArgument, "lora_a must have a rank in 1..1024 (got 0)");
  // A weight of 2^61 rows whose row_stride is 0 columns wide would be 2^61 * 128 bytes once it is packed.
  expect_error(create([](auto& p) {
                 p = {};
                 p.weight = {&p, int64_t{1} << 61, 0, 0, DType::kF32};
               }),
               kOverflow, "pack: weight");
}

TEST_F(Errors, OfPruning) {
  using enum ErrorCode;
  Matrix out(4, 24, DType::kBF16);
  expect_error(prune(x.view(), out.mutable_view()), kInvalidArgument, "out must be F32 like x");
  MutableMatrixView shifted = x.mutable_view();
  shifted.data = static_cast<float*>(shifted.data) + 1;
  expect_error(prune(x.view(), shifted), kInvalidArgument, "x and out overlap");
  expect_error(prune_compress(x.view(), lora_b.view()).status(), kInvalidArgument, "lora_a must be 24 x any");
  auto compressed = prune_compress(x.view());
  ASSERT_TRUE(compressed.ok());
  expect_error(decompress(compressed.value(), out.mutable_view()), kInvalidArgument, "out must be F32 like a");
  expect_error(decompress(compressed.value(), y.mutable_view()), kInvalidArgument, "out must be 4 x 24");
  Matrix dense(4, 24, DType::kF32);
  compressed.value().metadata[9] = std::byte{0x05};
  expect_error(decompress(compressed.value(), dense.mutable_view()), kInvalidArgument, "row 1, group 3");
  compressed.value().metadata.reset();
  expect_error(decompress(compressed.value(), dense.mutable_view()), kInvalidArgument, "no metadata");
}

TEST_F(Errors, OfSpmm) {
  using enum ErrorCode;
  const auto b = PackedWeight::pack({weight.view(), bias.view(), lora_b.view()});
  auto a = prune_compress(x.view(), lora_a.view());
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_TRUE(spmm(a.value(), b.value(), y.mutable_view()).ok());
  Matrix narrow(4, 5, DType::kF32), half(4, 6, DType::kBF16);
  expect_error(spmm(a.value(), b.value(), narrow.mutable_view()), kInvalidArgument, "y must be 4 x 6");
  expect_error(spmm(a.value(), b.value(), half.mutable_view()), kInvalidArgument, "y must be F32 like b");
  auto without = prune_compress(x.view());
  ASSERT_TRUE(without.ok());
  expect_error(spmm(without.value(), b.value(), y.mutable_view()), kInvalidArgument, "rank 3 like b (got 0)");
  EXPECT_TRUE(spmm(without.value(), b.value(), y.mutable_view(), {.use_lora = false}).ok());
  a.value().k = 20;
  expect_error(spmm(a.value(), b.value(), y.mutable_view()), kInvalidArgument, "k = 24 like b (got 20)");
  a.value().k = 24;
  a.value().dtype = DType::kBF16;
  expect_error(spmm(a.value(), b.value(), y.mutable_view()), kInvalidArgument, "a must be F32 like b");
  a.value().dtype = DType::kF32;
  a.value().scale.reset();
  expect_error(spmm(a.value(), b.value(), y.mutable_view()), kInvalidArgument, "lacks one of its buffers");
  a.value().m = -1;
  expect_error(spmm(a.value(), b.value(), y.mutable_view()), kInvalidArgument, "negative");
}

TEST_F(Errors, OfSettings) {
  using enum ErrorCode;
  expect_error(set_num_threads(-1), kInvalidArgument, "0..4096 (got -1)");
  expect_error(set_num_threads(4097), kInvalidArgument, "got 4097");
  const auto supported = supported_simd_targets();
  EXPECT_EQ(supported.front(), SimdTarget::kPortable);
  for (const SimdTarget target : {SimdTarget::kAvx2, SimdTarget::kAvx512, SimdTarget::kAvx512Bf16}) {
    if (std::find(supported.begin(), supported.end(), target) != supported.end()) continue;
    expect_error(force_simd_target(target), kUnsupported, std::string(simd_target_name(target)));
  }
  EXPECT_GE(num_threads(), 1);
}

TEST_F(Errors, OfAllocationsAtEveryPosition) {
  for (const bool and_all_later : {false, true}) {
    int64_t failures = 0;
    for (int64_t k = 1; k < 100; ++k) {
      release_thread_workspace();
      fail_allocation(k, and_all_later);
      const auto linear = SparseLinear::create(parameters);
      const Status ran = linear.ok() ? linear.value().run(x.view(), y.mutable_view()) : linear.status();
      const auto compressed = prune_compress(x.view(), lora_a.view());
      const int64_t seen = allocations_seen();
      fail_allocation(0);
      const bool failed = !ran.ok() || !compressed.ok();
      EXPECT_EQ(failed, k <= seen) << "allocation " << k << " of " << seen;
      EXPECT_EQ(ran.code(), ran.ok() ? ErrorCode::kOk : ErrorCode::kOutOfMemory) << ran.to_string();
      EXPECT_EQ(compressed.status().code(), compressed.ok() ? ErrorCode::kOk : ErrorCode::kOutOfMemory);
      if (!failed) break;
      ++failures;
    }
    EXPECT_GE(failures, 5);
  }
  const auto linear = SparseLinear::create(parameters);
  ASSERT_TRUE(linear.ok());
  EXPECT_TRUE(linear.value().run(x.view(), y.mutable_view()).ok()) << "the library works again afterwards";
}

TEST(ShapeLists, AreReadAndRefused) {
  for (const char* name : {"flux", "mini_flux", "edge"}) {
    const auto shapes = read_shapes(std::string(RTLYNX_SOURCE_DIR "/shapes/") + name + ".txt");
    ASSERT_TRUE(shapes.ok()) << shapes.status().to_string();
    EXPECT_GE(shapes.value().size(), 9u);
    EXPECT_FALSE(shapes.value().front().where.empty());
  }
  expect_error(read_shapes("no/such/list.txt").status(), ErrorCode::kNotFound, "no/such/list.txt");
  const std::string path = ::testing::TempDir() + "rtlynx_shapes_test.txt";
  for (const char* line : {"1 2 3", "1 2 x 4", "1 2 3 4 5", "-1 2 3 4", "9999999 1 1 1"}) {
    std::ofstream(path) << "# a list\n" << line << "\n";
    expect_error(read_shapes(path).status(), ErrorCode::kInvalidArgument, ":2:");
  }
}

}  // namespace
}  // namespace rtlynx::test
