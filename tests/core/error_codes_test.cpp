#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"
#include "tests/core/faulty_filesystem.h"

namespace rtlynx {
namespace {

struct Entry {
  ErrorCode code;
  std::string name;
  std::string meaning;
};

std::vector<Entry> all_codes() {
  return {
#define RTLYNX_ERROR(enumerator, name, meaning) {ErrorCode::enumerator, name, meaning},
#include "rtlynx/error_codes.inc"
#undef RTLYNX_ERROR
  };
}

TEST(ErrorCodes, NamesAreUniqueAndPlain) {
  std::set<std::string> names;
  for (const Entry& entry : all_codes()) {
    EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
    EXPECT_TRUE(std::ranges::all_of(entry.name, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    })) << entry.name;
    EXPECT_EQ(error_name(entry.code), entry.name);
    EXPECT_EQ(error_meaning(entry.code), entry.meaning);
  }
  EXPECT_EQ(error_name(ErrorCode::kOk), "ok");
  EXPECT_EQ(error_name(static_cast<ErrorCode>(9999)), "unknown");
}

// docs/errors.md has one table row a code, in the same order: "| `name` | meaning |".
TEST(ErrorCodes, AreAllDocumented) {
  const std::string path = RTLYNX_SOURCE_DIR "/docs/errors.md";
  const std::string text = testing::slurp(path);
  std::size_t rows = 0;
  for (std::size_t at = text.find("\n| `"); at != std::string::npos; at = text.find("\n| `", at + 1)) ++rows;
  std::size_t reached = 0;
  for (const Entry& entry : all_codes()) {
    const std::string row = "\n| `" + entry.name + "` | " + entry.meaning + " |";
    const std::size_t at = text.find(row, reached);
    ASSERT_NE(at, std::string::npos) << path << " lacks, or has elsewhere, the row:" << row;
    reached = at;
  }
  EXPECT_EQ(rows, all_codes().size()) << path << " has rows of codes that do not exist";
}

TEST(Status, SaysCodeAndMessage) {
  EXPECT_EQ(Status().to_string(), "ok");
  const Error error(ErrorCode::kNotFound, "a/b: no such file");
  EXPECT_STREQ(error.what(), "not-found: a/b: no such file");
  EXPECT_NO_THROW(throw_if_error(Status()));
  EXPECT_THROW(throw_if_error(error.status()), Error);
}

TEST(DTypes, HaveSizesAndNames) {
  EXPECT_EQ(size_of(DType::kF64), 8u);
  EXPECT_EQ(size_of(DType::kBF16), 2u);
  EXPECT_EQ(size_of(DType::kF8E4M3), 1u);
  EXPECT_EQ(size_of(DType::kBool), 1u);
  EXPECT_EQ(dtype_name(DType::kBF16), "BF16");
  EXPECT_EQ(dtype_name(DType::kF8E5M2), "F8_E5M2");
}

}  // namespace
}  // namespace rtlynx
