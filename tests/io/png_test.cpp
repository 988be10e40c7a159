#include "io/png.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>

#include "tests/core/expect_error.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::io {
namespace {

using testing::expect_error;
using testing::FaultyFileSystem;
using testing::slurp;
using testing::TemporaryFolder;

std::vector<uint8_t> some_rgb(int64_t width, int64_t height) {
  std::vector<uint8_t> rgb(static_cast<std::size_t>(width * height * 3));
  for (std::size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<uint8_t>(i * i % 253);
  return rgb;
}

const PngText kText = {{"parameters", "a fox\nSteps: 28, Seed: 42"},
                       {"prompt", "ein F\xC3\xBC\x63hslein \xF0\x9F\xA6\x8A"}};

uint32_t crc(std::string_view bytes) {
  uint32_t value = ~0u;
  for (const char c : bytes) {
    value ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0u);
  }
  return ~value;
}

std::string big_endian(uint32_t value) {
  std::string bytes;
  for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(value >> shift & 0xFF);
  return bytes;
}

std::string chunk(std::string type, std::string_view data) {
  type += data;
  return big_endian(static_cast<uint32_t>(data.size())) + type + big_endian(crc(type));
}

/// The text "k" = 20 MiB of "x", as a zTXt chunk's data of 20 KiB. Deflate by hand: one block of fixed Huffman codes, a
/// literal 'x' (code 0x30 + 120 = 168, 8 bits), then matches of length 258 (code 285, 8 bits 11000101) at distance 1
/// (code 0, 5 bits), end of block (code 256, 7 bits).
std::string zlib_bomb() {
  std::string bytes("k\0\0\x78\x9C", 5);
  uint32_t buffer = 0;
  int filled = 0;
  const auto put_bit = [&](uint32_t bit) {
    buffer |= bit << filled;
    if (++filled == 8) {
      bytes += static_cast<char>(buffer);
      buffer = 0;
      filled = 0;
    }
  };
  const auto put_code = [&](uint32_t code, int length) {
    for (int i = length - 1; i >= 0; --i) put_bit(code >> i & 1);
  };
  put_bit(1), put_bit(1), put_bit(0);  // the last block, fixed codes
  put_code(168, 8);
  constexpr int kMatches = (20 << 20) / 258;
  for (int i = 0; i < kMatches; ++i) put_code(0b11000101, 8), put_code(0, 5);
  put_code(0, 7);
  while (filled != 0) put_bit(0);
  uint32_t low = 1;
  uint32_t high = 0;  // Adler-32
  for (int i = 0; i < 1 + 258 * kMatches; ++i) {
    low = (low + 'x') % 65521;
    high = (high + low) % 65521;
  }
  return bytes + big_endian(high << 16 | low);
}

/// A PNG of ours with `extra` chunks after its IHDR (8 bytes signature, 25 bytes IHDR).
std::string with_chunks(const TemporaryFolder& folder, std::string_view extra) {
  write_png(folder / "base.png", 2, 2, some_rgb(2, 2), {});
  std::string bytes = slurp(folder / "base.png");
  bytes.insert(33, extra);
  return bytes;
}

TEST(Png, RoundTrips) {
  const TemporaryFolder folder;
  for (const auto& [width, height] : {std::pair<int64_t, int64_t>{1, 1}, {3, 5}, {256, 256}}) {
    const auto rgb = some_rgb(width, height);
    write_png(folder / "a.png", width, height, rgb, kText);
    const PngImage image = read_png(folder / "a.png");
    EXPECT_EQ(image.width, width);
    EXPECT_EQ(image.height, height);
    EXPECT_EQ(image.rgb, rgb);
    EXPECT_EQ(image.text, kText);
    const PngImage text = read_png_text(folder / "a.png");
    EXPECT_EQ(text.width, width);
    EXPECT_EQ(text.text, kText);
    EXPECT_TRUE(text.rgb.empty());
  }
  EXPECT_EQ(folder.count(), 1u);
}

TEST(Png, SameInputSameBytes) {
  const TemporaryFolder folder;
  write_png(folder / "a.png", 64, 64, some_rgb(64, 64), kText);
  write_png(folder / "b.png", 64, 64, some_rgb(64, 64), kText);
  EXPECT_EQ(slurp(folder / "a.png"), slurp(folder / "b.png"));
  EXPECT_EQ(slurp(folder / "a.png").find("zTXt"), std::string::npos);
  EXPECT_NE(slurp(folder / "a.png").find("tEXtparameters"), std::string::npos);
}

TEST(Png, RefusesBadArguments) {
  const TemporaryFolder folder;
  const auto path = folder / "a.png";
  const auto refused = [&](int64_t width, int64_t height, std::size_t bytes, const PngText& text,
                           std::string_view mention) {
    expect_error(ErrorCode::kInvalidArgument, {path.string(), mention},
                 [&] { write_png(path, width, height, std::vector<uint8_t>(bytes), text); });
  };
  refused(0, 1, 0, {}, "0x1");
  refused(1, -1, 0, {}, "1x-1");
  refused(16385, 1, 3, {}, "16385x1");
  refused(2, 2, 11, {}, "need 12 bytes, got 11");
  refused(1, 1, 3, {{"", "x"}}, "keyword");
  refused(1, 1, 3, {{std::string(80, 'k'), "x"}}, "keyword");
  refused(1, 1, 3, {{" k", "x"}}, "keyword");
  refused(1, 1, 3, {{"k\xC3\xBC", "x"}}, "keyword");
  refused(1, 1, 3, {{"k", std::string("a\0b", 3)}}, "NUL");
  refused(1, 1, 3, {{"k", "\xFF"}}, "UTF-8");
  refused(1, 1, 3, {{"k", std::string((1 << 20) + 1, 'x')}}, "1048576");
  EXPECT_EQ(folder.count(), 0u);
}

TEST(Png, LongAndOddTextsSurvive) {
  const TemporaryFolder folder;
  PngText text = {{"empty", ""}, {"long", std::string(1 << 20, 'x')}, {"lines", "a\n\tb\r\n"}};
  write_png(folder / "a.png", 1, 1, some_rgb(1, 1), text);
  text.erase("empty");
  EXPECT_EQ(read_png_text(folder / "a.png").text, text);
}

TEST(Png, ReadsTextsOfOtherWriters) {
  const TemporaryFolder folder;
  const auto texts = [&](std::string_view extra) {
    return read_png_text(folder.write("a.png", with_chunks(folder, extra))).text;
  };
  EXPECT_EQ(texts(chunk("tEXt", std::string_view("k\0caf\xE9", 6))), (PngText{{"k", "caf\xC3\xA9"}}));
  EXPECT_EQ(texts(chunk("tEXt", std::string_view("k\0caf\xC3\xA9", 7))), (PngText{{"k", "caf\xC3\xA9"}}));
  EXPECT_EQ(texts(chunk("tEXt", std::string_view("k\0one", 5)) + chunk("tEXt", std::string_view("k\0two", 5))),
            (PngText{{"k", "one"}}));
  EXPECT_EQ(texts(chunk("iTXt", std::string_view("k\0\0\0\0\0\xFF", 7))), (PngText{{"k", "\xC3\xBF"}}));
}

TEST(Png, RefusesTooLargeOnes) {
  const TemporaryFolder folder;
  std::string bytes = with_chunks(folder, "");
  const std::string header = "IHDR" + big_endian(16385) + big_endian(1) + std::string("\x08\x02\0\0\0", 5);
  bytes.replace(12, 21, header + big_endian(crc(header)));
  const auto path = folder.write("wide.png", bytes);
  expect_error(ErrorCode::kImageTooLarge, {path.string()}, [&] { read_png(path); });
  expect_error(ErrorCode::kImageTooLarge, {path.string()}, [&] { read_png_text(path); });
  std::filesystem::resize_file(path, 10'000'000'000);
  expect_error(ErrorCode::kImageTooLarge, {path.string(), "10000000000 bytes"}, [&] { read_png(path); });
}

TEST(Png, BoundsMetadata) {
  const TemporaryFolder folder;
  const std::string part = std::string("k\0", 2) + std::string(9u << 20, 'x');
  const auto one = folder.write("one.png", with_chunks(folder, chunk("tEXt", part)));
  EXPECT_EQ(read_png_text(one).text.at("k").size(), 9u << 20);
  const auto two = folder.write("two.png", with_chunks(folder, chunk("tEXt", part) + chunk("tEXt", part)));
  const auto inflates = folder.write("inflates.png", with_chunks(folder, chunk("zTXt", zlib_bomb())));
  for (const auto& path : {two, inflates}) {
    expect_error(ErrorCode::kImageTooLarge, {path.string(), "limits"}, [&] { read_png_text(path); });
    expect_error(ErrorCode::kImageTooLarge, {path.string(), "limits"}, [&] { read_png(path); });
  }
}

// Every byte of a small file changed in turn: the same picture, another one or an error; with red zones by the
// sanitizers.
TEST(Png, DamagedFilesGiveAnErrorOrAPicture) {
  const TemporaryFolder folder;
  write_png(folder / "a.png", 3, 3, some_rgb(3, 3), {{"k", "text"}});
  const std::string good = slurp(folder / "a.png");
  int errors = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
    try {
      EXPECT_EQ(read_png(folder.write("b.png", bytes)).rgb.size() % 3, 0u);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::kBadPng || error.code() == ErrorCode::kImageTooLarge) << error.what();
      ++errors;
    }
  }
  EXPECT_GT(errors, static_cast<int>(good.size() / 2));
  for (std::size_t size = 0; size + 12 < good.size(); ++size) {  // the last 12 bytes are the IEND chunk
    expect_error(ErrorCode::kBadPng, {"c.png"}, [&] { read_png(folder.write("c.png", good.substr(0, size))); });
  }
  expect_error(ErrorCode::kNotFound, {"none.png"}, [&] { read_png(folder / "none.png"); });
}

TEST(Png, EveryFailingCallLeavesOldOrNew) {
  bool fired = true;
  for (int64_t k = 1; fired; ++k) {
    const TemporaryFolder folder;
    const auto path = folder.write("a.png", "old");
    FaultyFileSystem faulty({.at_call = k, .error = ENOSPC});
    bool failed = false;
    {
      const ScopedFileSystem scope(faulty);
      try {
        write_png(path, 4, 4, some_rgb(4, 4), kText);
      } catch (const Error& error) {
        failed = true;
        EXPECT_EQ(error.code(), ErrorCode::kWriteFailed);
      }
    }
    fired = faulty.fired();
    EXPECT_EQ(failed, fired);
    EXPECT_EQ(folder.count(), 1u);
    EXPECT_TRUE(slurp(path) == "old" || read_png(path).rgb == some_rgb(4, 4));
    ASSERT_LT(k, 50);
  }
}

}  // namespace
}  // namespace rtlynx::io
