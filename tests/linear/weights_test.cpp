#include "linear/weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "io/safetensors.h"
#include "rtlynx/status.h"
#include "tests/core/expect_error.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto raw = std::as_bytes(std::span(values));
  return {raw.begin(), raw.end()};
}

void write_one(const TemporaryFolder& folder, DType dtype, std::vector<int64_t> shape,
               const std::vector<std::byte>& bytes) {
  io::write_safetensors(folder / "model.safetensors", {{"a", dtype, std::move(shape), bytes}}, {});
}

const std::vector<std::byte> kBits = bytes_of<uint16_t>({0x3F80, 0x8000, 0x7F7F, 0x0001, 0x7F80, 0x7FC1});

// bf16 -> bf16 keeps the bits, denormals, -0, Inf and NaN among them; bf16 -> fp32 is exact.
TEST(Weights, KeepsValuesExactly) {
  const TemporaryFolder folder;
  write_one(folder, DType::kBF16, {2, 3}, kBits);
  at::Tensor same = Weights::load(folder.path(), {at::kCPU, at::kBFloat16}).take("a", {2, 3});
  EXPECT_EQ(same.scalar_type(), at::kBFloat16);
  EXPECT_EQ(std::memcmp(same.data_ptr(), kBits.data(), kBits.size()), 0);
  at::Tensor wide = Weights::load(folder.path(), {at::kCPU, at::kFloat}).take("a", {2, 3});
  EXPECT_EQ(wide.scalar_type(), at::kFloat);
  for (int i = 0; i < 6; ++i) {
    uint32_t wanted = 0;
    std::memcpy(reinterpret_cast<char*>(&wanted) + 2, kBits.data() + 2 * i, 2);
    uint32_t got = 0;
    std::memcpy(&got, static_cast<const float*>(wide.data_ptr()) + i, sizeof(got));
    EXPECT_EQ(got, wanted) << i;
  }
}

TEST(Weights, ConvertsEveryFloatingType) {
  const TemporaryFolder folder;
  const std::pair<DType, std::vector<std::byte>> ones[] = {
      {DType::kF64, bytes_of<double>({1.0, -2.0})},        {DType::kF32, bytes_of<float>({1.0F, -2.0F})},
      {DType::kF16, bytes_of<uint16_t>({0x3C00, 0xC000})}, {DType::kBF16, bytes_of<uint16_t>({0x3F80, 0xC000})},
      {DType::kF8E4M3, bytes_of<uint8_t>({0x38, 0xC0})},   {DType::kF8E5M2, bytes_of<uint8_t>({0x3C, 0xC0})},
  };
  for (const auto& [dtype, bytes] : ones) {
    write_one(folder, dtype, {2}, bytes);
    for (const at::ScalarType wanted : {at::kFloat, at::kBFloat16}) {
      const at::Tensor tensor = Weights::load(folder.path(), {at::kCPU, wanted}).take("a", {2});
      EXPECT_EQ(tensor.scalar_type(), wanted);
      EXPECT_EQ(tensor[0].item<float>(), 1.0F) << dtype_name(dtype);
      EXPECT_EQ(tensor[1].item<float>(), -2.0F) << dtype_name(dtype);
    }
  }
}

TEST(Weights, SaysWhichTensorIsWrong) {
  const TemporaryFolder folder;
  write_one(folder, DType::kBF16, {2, 3}, kBits);
  const std::string path = folder.path().string();
  Weights weights = Weights::load(folder.path(), {});
  EXPECT_TRUE(weights.has("a"));
  expect_error(ErrorCode::kTensorMissing, {path, "\"b\"", "[4, 5]"}, [&] { weights.take("b", {4, 5}); });
  expect_error(ErrorCode::kTensorShape, {path, "\"a\"", "[3, 2]", "[2, 3]"}, [&] { weights.take("a", {3, 2}); });
  expect_error(ErrorCode::kTensorUnexpected, {path, "\"a\""}, [&] { weights.finish(); });
  EXPECT_NO_THROW(weights.finish({"a"}));
  weights.take("a", {2, 3});
  EXPECT_FALSE(weights.has("a"));
  EXPECT_NO_THROW(weights.finish());
  expect_error(ErrorCode::kTensorMissing, {"\"a\""}, [&] { weights.take("a", {2, 3}); });
}

TEST(Weights, RefusesIntegersWhereFloatsAreWanted) {
  const TemporaryFolder folder;
  write_one(folder, DType::kI64, {2}, bytes_of<int64_t>({1, 2}));
  Weights weights = Weights::load(folder.path(), {});
  expect_error(ErrorCode::kTensorDType, {folder.path().string(), "\"a\"", "Long"}, [&] { weights.take("a", {2}); });
  EXPECT_NO_THROW(weights.finish({"a"}));
  write_one(folder, DType::kU16, {2}, bytes_of<uint16_t>({1, 2}));
  expect_error(ErrorCode::kTensorDType, {"\"a\"", "U16"}, [&] { Weights::load(folder.path(), {}); });
}

TEST(Weights, DoesNotReadWhatIsIgnored) {
  const TemporaryFolder folder;
  // An element type that reading would refuse.
  write_one(folder, DType::kU16, {2}, bytes_of<uint16_t>({1, 2}));
  EXPECT_FALSE(Weights::load(folder.path(), {}, {"b", "a"}).has("a"));
  expect_error(ErrorCode::kTensorDType, {"\"a\""}, [&] { Weights::load(folder.path(), {}, {"b", "a."}); });
}

TEST(Weights, EmptyTensorsAndNoWeights) {
  const TemporaryFolder folder;
  write_one(folder, DType::kF32, {0, 4}, {});
  EXPECT_EQ(Weights::load(folder.path(), {}).take("a", {0, 4}).numel(), 0);
  expect_error(ErrorCode::kNotFound, {"none"}, [&] { Weights::load(folder / "none", {}); });
}

// A file with a hole that claims 8 TB, which Linux refuses to allocate at once unless it is told to grant everything.
TEST(Weights, MoreThanMemoryIsAnError) {
  std::ifstream setting("/proc/sys/vm/overcommit_memory");
  if (int mode = 1; !(setting >> mode) || mode == 1) GTEST_SKIP() << "vm.overcommit_memory grants everything";
  const TemporaryFolder folder;
  const std::string header = R"({"a":{"dtype":"U8","shape":[8796093022208],"data_offsets":[0,8796093022208]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  const auto path = folder.write("model.safetensors", bytes + header);
  std::error_code too_large;
  std::filesystem::resize_file(path, 8 + header.size() + (uintmax_t{1} << 43), too_large);
  if (too_large) GTEST_SKIP() << "this file system has no files of 8 TB";
  expect_error(ErrorCode::kOutOfMemory, {path.string(), "\"a\"", "8796093022208"},
               [&] { Weights::load(folder.path(), {}); });
}

}  // namespace
}  // namespace rtlynx
