#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "core/checked.h"
#include "core/hash64.h"

namespace rtlynx {
namespace {

constexpr uint64_t kU64Max = std::numeric_limits<uint64_t>::max();
constexpr int64_t kI64Max = std::numeric_limits<int64_t>::max();
constexpr int64_t kI64Min = std::numeric_limits<int64_t>::min();

TEST(Checked, AddsUpToTheLimit) {
  EXPECT_EQ(checked_add<uint64_t>(kU64Max - 1, 1), kU64Max);
  EXPECT_EQ(checked_add<uint64_t>(kU64Max, 1), std::nullopt);
  EXPECT_EQ(checked_add<int64_t>(kI64Max, 1), std::nullopt);
  EXPECT_EQ(checked_add<int64_t>(kI64Min, -1), std::nullopt);
}

TEST(Checked, MultipliesUpToTheLimit) {
  EXPECT_EQ(checked_mul<uint64_t>(uint64_t{1} << 32, uint64_t{1} << 31), uint64_t{1} << 63);
  EXPECT_EQ(checked_mul<uint64_t>(uint64_t{1} << 32, uint64_t{1} << 32), std::nullopt);
  EXPECT_EQ(checked_mul<int64_t>(kI64Min, -1), std::nullopt);
  EXPECT_EQ(checked_mul<int64_t>(kI64Max, 0), 0);
}

TEST(Checked, RoundsUpOrSaysThatItCannot) {
  EXPECT_EQ(checked_round_up<uint64_t>(0, 64), 0u);
  EXPECT_EQ(checked_round_up<uint64_t>(65, 64), 128u);
  EXPECT_EQ(checked_round_up<uint64_t>(kU64Max, 64), std::nullopt);
}

// Known answers of XXH64, seed 0.
TEST(Hash64, KnowsTheAnswers) {
  const auto digest = [](std::string_view text) {
    Hash64 hash;
    hash.update(text);
    return hex16(hash.digest());
  };
  EXPECT_EQ(digest(""), "ef46db3751d8e999");
  EXPECT_EQ(digest("a"), "d24ec4f1a98c6e5b");
  EXPECT_EQ(digest("abc"), "44bc2cf5ad770999");
  EXPECT_EQ(digest("The quick brown fox jumps over the lazy dog"), "0b242d361fda71bc");
}

TEST(Hash64, CutsBetweenPiecesDoNotMatter) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>(i * 7);
  for (std::size_t size = 0; size <= text.size(); ++size) {
    const std::string_view whole = std::string_view(text).substr(0, size);
    Hash64 once;
    once.update(whole);
    for (const std::size_t step : {std::size_t{1}, std::size_t{5}, std::size_t{31}, std::size_t{33}, std::size_t{64}}) {
      Hash64 pieces;
      for (std::size_t at = 0; at < size; at += step) pieces.update(whole.substr(at, step));
      ASSERT_EQ(pieces.digest(), once.digest()) << size << " bytes in pieces of " << step;
    }
  }
}

TEST(Hash64, OneFlippedBitShows) {
  std::string text(100, 'x');
  Hash64 before;
  before.update(text);
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    Hash64 after;
    after.update(flipped);
    ASSERT_NE(after.digest(), before.digest()) << "bit " << bit;
  }
}

}  // namespace
}  // namespace rtlynx
