#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "io/safetensors.h"
#include "tests/core/expect_error.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::io {
namespace {

using testing::expect_error;
using testing::FaultyFileSystem;
using testing::slurp;
using testing::TemporaryFolder;

const std::vector<std::byte>& some_bytes() {
  static const std::vector<std::byte> bytes = [] {
    std::vector<std::byte> result(64);
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = static_cast<std::byte>(i);
    return result;
  }();
  return bytes;
}

TensorToWrite tensor(std::string name, DType dtype, std::vector<int64_t> shape, std::size_t bytes) {
  return {std::move(name), dtype, std::move(shape), std::span(some_bytes()).first(bytes)};
}

TEST(WriteSafetensors, RoundTripsEveryType) {
  const TemporaryFolder folder;
  std::vector<TensorToWrite> tensors;
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    const auto dtype = static_cast<DType>(i);
    tensors.push_back(tensor("t." + std::string(dtype_name(dtype)), dtype, {2, 1, 3}, 6 * size_of(dtype)));
  }
  tensors.push_back(tensor("scalar", DType::kF32, {}, 4));
  tensors.push_back(tensor("empty \"quoted\"", DType::kF32, {0, 5}, 0));
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"note", "a\n\"b\" \xE2\x82\xAC"}};
  write_safetensors(folder / "a.safetensors", tensors, metadata);

  const SafetensorsFile file = SafetensorsFile::open(folder / "a.safetensors");
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), tensors.size());
  std::size_t last_size = 8;
  for (const TensorInfo& info : file.tensors()) {
    EXPECT_LE(size_of(info.dtype), last_size);
    last_size = size_of(info.dtype);
    EXPECT_EQ(info.begin % size_of(info.dtype), 0u) << info.name;
  }
  for (const TensorToWrite& written : tensors) {
    const TensorInfo* info = file.find(written.name);
    ASSERT_NE(info, nullptr) << written.name;
    EXPECT_EQ(info->dtype, written.dtype);
    EXPECT_EQ(info->shape, written.shape);
    std::vector<std::byte> bytes(written.bytes.size());
    file.read(*info, bytes);
    EXPECT_TRUE(std::ranges::equal(bytes, written.bytes)) << written.name;
  }
}

TEST(WriteSafetensors, OrderOfTheInputDoesNotShow) {
  const TemporaryFolder folder;
  const auto a = tensor("a", DType::kBF16, {3}, 6);
  const auto b = tensor("b", DType::kF32, {2}, 8);
  const auto c = tensor("c", DType::kBF16, {1}, 2);
  write_safetensors(folder / "1", {a, b, c}, {});
  write_safetensors(folder / "2", {c, b, a}, {});
  EXPECT_EQ(slurp(folder / "1"), slurp(folder / "2"));
  EXPECT_FALSE(slurp(folder / "1").empty());
}

TEST(WriteSafetensors, RefusesWhatTheReaderWouldRefuse) {
  const TemporaryFolder folder;
  const auto path = folder / "a.safetensors";
  const auto refused = [&](ErrorCode code, std::string_view mention, std::vector<TensorToWrite> tensors,
                           std::map<std::string, std::string> metadata = {}) {
    expect_error(code, {path.string(), mention}, [&] { write_safetensors(path, tensors, metadata); });
  };
  refused(ErrorCode::kSafetensorsName, "empty", {tensor("", DType::kF32, {1}, 4)});
  refused(ErrorCode::kSafetensorsName, "control", {tensor("a\n", DType::kF32, {1}, 4)});
  refused(ErrorCode::kSafetensorsName, "UTF-8", {tensor("\xFF", DType::kF32, {1}, 4)});
  refused(ErrorCode::kSafetensorsName, "reserved", {tensor("__metadata__", DType::kF32, {1}, 4)});
  refused(ErrorCode::kSafetensorsRank, "\"a\"", {tensor("a", DType::kF32, std::vector<int64_t>(9, 1), 4)});
  refused(ErrorCode::kSafetensorsSizeMismatch, "8 bytes, got 4", {tensor("a", DType::kF32, {2}, 4)});
  refused(ErrorCode::kSafetensorsShapeOverflow, "63 bits", {tensor("a", DType::kF32, {int64_t{1} << 62, 4}, 4)});
  refused(ErrorCode::kSafetensorsShapeOverflow, "63 bits", {tensor("a", DType::kF32, {-1}, 4)});
  refused(ErrorCode::kSafetensorsDuplicateTensor, "\"a\"",
          {tensor("a", DType::kF32, {1}, 4), tensor("a", DType::kF16, {1}, 2)});
  refused(ErrorCode::kSafetensorsMetadata, "\"k\"", {}, {{"k", "\xFF"}});
  refused(ErrorCode::kSafetensorsHeaderTooLarge, "100000000", {}, {{"k", std::string(100'000'001, 'x')}});
  EXPECT_EQ(folder.count(), 0u);
}

TEST(WriteSafetensors, EveryFailingCallLeavesOldOrNew) {
  bool fired = true;
  for (int64_t k = 1; fired; ++k) {
    const TemporaryFolder folder;
    const auto path = folder.write("a.safetensors", "old");
    FaultyFileSystem faulty({.at_call = k, .error = ENOSPC});
    bool failed = false;
    {
      const ScopedFileSystem scope(faulty);
      try {
        write_safetensors(path, {tensor("a", DType::kF32, {4}, 16), tensor("b", DType::kF32, {2}, 8)}, {});
      } catch (const Error& error) {
        failed = true;
        EXPECT_EQ(error.code(), ErrorCode::kWriteFailed);
        EXPECT_NE(error.status().message().find(path.string()), std::string::npos);
        EXPECT_NE(error.status().message().find("No space"), std::string::npos);
      }
    }
    fired = faulty.fired();
    EXPECT_EQ(failed, fired);
    EXPECT_EQ(folder.count(), 1u) << "call " << k;
    EXPECT_TRUE(slurp(path) == "old" || SafetensorsFile::open(path).tensors().size() == 2);
    ASSERT_LT(k, 50);
  }
}

TEST(WriteSafetensors, SurvivesAPowerCutAtAnyMoment) {
  const TemporaryFolder folder;
  FaultyFileSystem journal;
  {
    const ScopedFileSystem scope(journal);
    write_safetensors(folder / "a", {tensor("a", DType::kF32, {4}, 16)}, {});
  }
  EXPECT_EQ(testing::durability_problem(journal.journal(), folder / "a"), "");
}

}  // namespace
}  // namespace rtlynx::io
