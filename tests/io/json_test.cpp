#include "io/json.h"

#include <gtest/gtest.h>

#include <limits>

#include "io/utf8.h"
#include "tests/core/expect_error.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::io {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

TEST(ParseJson, ReadsWhatIsStrictJson) {
  const auto value = parse_json(R"( {"a":[1,-2,3.5,1e3,true,null,"\u00e9"],"b":{"c":{}}} )", "here");
  EXPECT_EQ(value["a"][1], -2);
  EXPECT_EQ(value["a"][6], "\xC3\xA9");
  EXPECT_TRUE(value["b"]["c"].is_object());
  EXPECT_EQ(parse_json("7", "here"), 7);
  EXPECT_EQ(parse_json("18446744073709551615", "here").get<uint64_t>(), std::numeric_limits<uint64_t>::max());
}

TEST(ParseJson, RefusesEverythingElse) {
  const struct {
    std::string text;
    std::string mention;
  } cases[] = {
      {"", "syntax error"},
      {"{\"a\":1", "syntax error"},
      {"{\"a\":1,}", "byte 8"},
      {"{} {}", "syntax error"},
      {"[1,]", "syntax error"},
      {"{'a':1}", "syntax error"},
      {"// x\n{}", "syntax error"},
      {"[NaN]", "syntax error"},
      {"[Infinity]", "syntax error"},
      {"[01]", "syntax error"},
      {"[+1]", "syntax error"},
      {"[1e400]", "number out of range"},
      {"[18446744073709551616]", "passes 64 bits"},
      {"[1000000000000000019884624838657]", "passes 64 bits"},
      {"[-9223372036854775809]", "passes 64 bits"},
      {"{\"a\":1,\"a\":1}", "duplicate key \"a\""},
      {"{\"x\":{\"a\":1,\"\\u0061\":1}}", "duplicate key \"a\""},
      {"\xEF\xBB\xBF{}", "byte order mark"},
      {std::string("{}\0", 3), "NUL at byte 2"},
      {"[\"\xC3(\"]", "invalid UTF-8 at byte 2"},
      {"[\"\\ud800\"]", "syntax error"},
      {"[\"a\nb\"]", "syntax error"},
      {std::string(17, '[') + std::string(17, ']'), "deeper than 16"},
      {std::string(1'000'000, '['), "deeper than 16"},
  };
  for (const auto& [text, mention] : cases) {
    expect_error(ErrorCode::kBadJson, {"here", mention}, [&] { parse_json(text, "here"); });
  }
  EXPECT_NO_THROW(parse_json(std::string(16, '[') + std::string(16, ']'), "here"));
  expect_error(ErrorCode::kBadJson, {"here", "5 bytes, at most 4"}, [] { parse_json("[1,2]", "here", 4); });
}

TEST(ReadJson, IsBoundedByTheFileSize) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.json", "[1,2]");
  EXPECT_EQ(read_json(path).size(), 2u);
  expect_error(ErrorCode::kBadJson, {path.string(), "5 bytes, at most 4"}, [&] { read_json(path, 4); });
  expect_error(ErrorCode::kNotFound, {"none.json"}, [&] { read_json(folder / "none.json"); });
  std::filesystem::resize_file(path, 10'000'000'000);
  expect_error(ErrorCode::kBadJson, {path.string()}, [&] { read_json(path); });
}

Config config(const std::string& text) {
  return {parse_json(text, "config.json"), "config.json"};
}

TEST(Config, GivesValuesWithinBounds) {
  const Config c = config(R"({"i":8,"neg":-3,"f":2.5,"whole":2,"b":true,"t":"text","n":null,"l":[1,2],"s":["x","y"]})");
  EXPECT_EQ(c.integer("i", 1, 8), 8);
  EXPECT_EQ(c.integer("neg", -3, 0), -3);
  EXPECT_EQ(c.number("f", 0, 3), 2.5);
  EXPECT_EQ(c.number("whole", 0, 3), 2.0);
  EXPECT_TRUE(c.boolean("b"));
  EXPECT_EQ(c.text("t"), "text");
  EXPECT_EQ(c.integers("l", 0, 9), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(c.texts("s"), (std::vector<std::string>{"x", "y"}));
  EXPECT_FALSE(c.has("n"));
  EXPECT_FALSE(c.has("absent"));
  EXPECT_EQ(c.integer("n", 1, 8, 5), 5);
  EXPECT_EQ(c.integer("i", 1, 8, 5), 8);
  EXPECT_EQ(c.number("absent", 0, 1, 0.5), 0.5);
  EXPECT_EQ(c.boolean("absent", true), true);
  EXPECT_EQ(c.text("n", "other"), "other");
  EXPECT_EQ(c.origin(), "config.json");
}

TEST(Config, TakesTheIntegerThatTransformersWritesForNoLimit) {
  const Config c = config(R"({"model_max_length":1000000000000000019884624838656})");
  EXPECT_EQ(c.number("model_max_length", 1, 1e31), 1e30);
  expect_error(ErrorCode::kBadConfig, {"\"model_max_length\""},
               [&] { std::ignore = c.integer("model_max_length", 1, INT64_MAX); });
}

TEST(Config, RefusesValuesOutOfBounds) {
  const auto refused = [](std::string_view value, std::string_view mention) {
    const Config c = config("{\"num_layers\":" + std::string(value) + "}");
    expect_error(ErrorCode::kBadConfig, {"config.json", "\"num_layers\"", "an integer from 1 to 64", mention},
                 [&] { std::ignore = c.integer("num_layers", 1, 64); });
    if (value != "null") {
      expect_error(ErrorCode::kBadConfig, {"\"num_layers\""}, [&] { std::ignore = c.integer("num_layers", 1, 64, 2); });
    }
  };
  refused("-1", "the number -1");
  refused("0", "the number 0");
  refused("1000000000", "the number 1000000000");
  refused("18446744073709551615", "the number 18446744073709551615");
  refused("2.0", "the number 2");
  refused("1e308", "the number 1e+308");
  refused("\"2\"", "the text \"2\"");
  refused("true", "true");
  refused("null", "null");
  refused("[2]", "array");
}

TEST(Config, RefusesOtherTypes) {
  const Config c = config(R"({"i":1,"t":"x","f":1e308,"l":[1,"x"],"s":["x",1],"b":0})");
  const auto refused = [&](std::string_view key, auto&& access) {
    expect_error(ErrorCode::kBadConfig, {"config.json", key}, [&] { std::ignore = access(); });
  };
  refused("\"t\"", [&] { return c.number("t", 0, 1); });
  refused("\"f\"", [&] { return c.number("f", 0, 1e6); });
  refused("\"f\"", [&] { return c.number("f", 0, 1e6, 1.0); });
  refused("\"b\"", [&] { return c.boolean("b"); });
  refused("\"b\"", [&] { return c.boolean("b", true); });
  refused("\"i\"", [&] { return c.text("i"); });
  refused("\"l[1]\"", [&] { return c.integers("l", 0, 9); });
  refused("\"l[0]\"", [&] { return c.integers("l", 2, 9); });
  refused("\"l\"", [&] { return c.integers("l", 0, 9, 1); });
  refused("\"i\"", [&] { return c.integers("i", 0, 9); });
  refused("\"s[1]\"", [&] { return c.texts("s"); });
  refused("\"s\"", [&] { return c.texts("s", 1); });
  refused("nothing", [&] { return c.integer("absent", 0, 9); });
  refused("nothing", [&] { return c.text("absent"); });
  refused("a JSON object", [&] { return config("[]").has("x"); });
  const Config large = config("{\"t\":\"" + std::string(1 << 20, 'x') + "\"}");
  expect_error(ErrorCode::kBadConfig, {"at most 4096 bytes", "\"xxxx"}, [&] { std::ignore = large.text("t"); });
}

TEST(Utf8, FindsTheFirstBadByte) {
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8("ascii \xC2\x80 \xE0\xA0\x80 \xED\x9F\xBF \xEF\xBF\xBF \xF0\x90\x80\x80 \xF4\x8F\xBF\xBF"));
  const std::pair<std::string_view, std::size_t> bad[] = {
      {"a\x80", 1},        {"\xC0\x80", 0}, {"\xC1\xBF", 0},         {"ab\xC2", 2},           {"\xE0\x9F\xBF", 0},
      {"\xED\xA0\x80", 0}, {"\xE2\x82", 0}, {"\xF0\x8F\xBF\xBF", 0}, {"\xF4\x90\x80\x80", 0}, {"\xF5\x80\x80\x80", 0},
      {"\xF0\x90\x80", 0}, {"\xFF", 0},     {"\xE2\x28\xA1", 0},
  };
  for (const auto& [text, at] : bad) EXPECT_EQ(first_invalid_utf8(text), at) << quote(text);
}

// All 1,112,064 code points are accepted in their shortest form, all two-byte strings are judged as Unicode says.
TEST(Utf8, AgreesWithTheDefinition) {
  for (uint32_t point = 0; point <= 0x10FFFF; ++point) {
    std::string text;
    const auto byte = [&](uint32_t value) { text += static_cast<char>(value); };
    if (point < 0x80) {
      byte(point);
    } else if (point < 0x800) {
      byte(0xC0 | point >> 6), byte(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
      byte(0xE0 | point >> 12), byte(0x80 | (point >> 6 & 0x3F)), byte(0x80 | (point & 0x3F));
    } else {
      byte(0xF0 | point >> 18), byte(0x80 | (point >> 12 & 0x3F)), byte(0x80 | (point >> 6 & 0x3F)),
          byte(0x80 | (point & 0x3F));
    }
    const bool surrogate = point >= 0xD800 && point <= 0xDFFF;
    ASSERT_EQ(is_utf8(text), !surrogate) << point;
  }
  for (unsigned first = 0; first < 256; ++first) {
    for (unsigned second = 0; second < 256; ++second) {
      const std::string text = {static_cast<char>(first), static_cast<char>(second)};
      const bool two_ascii = first < 0x80 && second < 0x80;
      const bool one_pair = first >= 0xC2 && first <= 0xDF && second >= 0x80 && second <= 0xBF;
      ASSERT_EQ(is_utf8(text), two_ascii || one_pair) << first << " " << second;
    }
  }
}

TEST(Quote, KeepsTheTerminalSafe) {
  EXPECT_EQ(quote("plain.name"), "\"plain.name\"");
  EXPECT_EQ(quote("\xE2\x82\xAC"), "\"\xE2\x82\xAC\"");
  EXPECT_EQ(quote("a\"b\\\n\x1b[2J\x7f"), R"("a\x22b\x5c\x0a\x1b[2J\x7f")");
  EXPECT_EQ(quote("\xC2\x9B\xFF"), R"("\xc2\x9b\xff")");
  EXPECT_EQ(quote("abcdef", 3), "\"abc\"...");
}

}  // namespace
}  // namespace rtlynx::io
