#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/charsmap.h"
#include "models/text/clip_tokenizer.h"
#include "models/text/sentencepiece_model.h"
#include "models/text/t5_tokenizer.h"
#include "models/text/unigram.h"
#include "tests/models/text/tokenizer_fixture.h"

namespace rtlynx::models {
namespace {

using rtlynx::testing::expect_error;

constexpr const char* kVocab =
    R"({"a": 0, "b": 1, "c": 2, "a</w>": 3, "b</w>": 4, "c</w>": 5, "ab": 6, "ab</w>": 7, "abc</w>": 8,
        "<|startoftext|>": 9, "<|endoftext|>": 10})";
constexpr const char* kMerges = "#version: 0.2\na b\na b</w>\nab c</w>\n";

class ClipTokenizerTest : public TokenizerTest {
 protected:
  ClipTokenizerTest() {
    write(folder_ / "vocab.json", kVocab);
    write(folder_ / "merges.txt", kMerges);
  }
  void expect_bad(std::initializer_list<std::string_view> parts, ErrorCode code = ErrorCode::kBadTokenizer) {
    expect_error(code, parts, [this] { ClipTokenizer{folder_}; });
  }
};

TEST_F(ClipTokenizerTest, MergesByRankAndPads) {
  const TokenIds tokens = ClipTokenizer(folder_).encode("ABC ab  c", 8);
  EXPECT_EQ(tokens.ids, (std::vector<int64_t>{9, 8, 7, 5, 10, 10, 10, 10}));
  EXPECT_EQ(tokens.tokens_dropped, 0);
}

TEST_F(ClipTokenizerTest, KeepsTheEndTokenOfALongPromptAndCountsWhatItDrops) {
  const TokenIds tokens = ClipTokenizer(folder_).encode("a b c ab abc", 4);
  EXPECT_EQ(tokens.ids, (std::vector<int64_t>{9, 3, 4, 10}));
  EXPECT_EQ(tokens.tokens_dropped, 3);
}

TEST_F(ClipTokenizerTest, TakesBytesThatTheVocabularyLacksForUnknown) {
  EXPECT_EQ(ClipTokenizer(folder_).encode("z", 3).ids, (std::vector<int64_t>{9, 10, 10}));
}

TEST_F(ClipTokenizerTest, EmptyPrompt) {
  EXPECT_EQ(ClipTokenizer(folder_).encode("", 2).ids, (std::vector<int64_t>{9, 10}));
}

TEST_F(ClipTokenizerTest, RefusesBadPrompts) {
  const ClipTokenizer tokenizer(folder_);
  expect_error(ErrorCode::kBadPrompt, {"65537", "65536"}, [&] { tokenizer.encode(std::string(65537, 'a'), 77); });
  expect_error(ErrorCode::kBadPrompt, {"1048576"}, [&] { tokenizer.encode(std::string(1 << 20, 'a'), 77); });
  expect_error(ErrorCode::kBadPrompt, {"UTF-8", "byte 2"}, [&] { tokenizer.encode("ab\xFF", 77); });
  expect_error(ErrorCode::kBadPrompt, {"UTF-8"}, [&] { tokenizer.encode("\xED\xA0\x80", 77); });
  expect_error(ErrorCode::kInvalidArgument, {"max_length 1"}, [&] { tokenizer.encode("a", 1); });
  expect_error(ErrorCode::kInvalidArgument, {"max_length"}, [&] { tokenizer.encode("a", int64_t{1} << 40); });
}

TEST_F(ClipTokenizerTest, LongestPromptAsOneWordTakesBoundedTime) {
  const ClipTokenizer tokenizer(folder_);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(tokenizer.encode(std::string(65536, 'a'), 77).tokens_dropped, 65536 - 75);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST_F(ClipTokenizerTest, RefusesMalformedVocabularies) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"a": 0)", "syntax"},
      {R"({"a": 0, "a": 1})", "duplicate"},
      {R"(["a"])", "object"},
      {R"({})", "object"},
      {R"({"a": 0, "b": 0})", "same id"},
      {R"({"a": -1})", "-1"},
      {R"({"a": 1.5})", "1.5"},
      {R"({"a": "x"})", "integer"},
      {R"({"a": 18446744073709551615})", "integer"},
      {R"({"a": 0, "b": 1})", "merges.txt: line 2"},
  };
  for (const auto& [text, part] : cases) {
    write(folder_ / "vocab.json", text);
    expect_bad({part == "merges.txt: line 2" ? "merges.txt" : "vocab.json", part});
  }
  fs::remove(folder_ / "vocab.json");
  expect_bad({"vocab.json"}, ErrorCode::kNotFound);
}

TEST_F(ClipTokenizerTest, RefusesMalformedMerges) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"#version: 0.2\na b\na b</w>\nn", "line 4"},    // cut off within a line
      {"#version: 0.2\na b\na b</w>\n", "abc</w>"},    // cut off at a line's end
      {"#version: 0.2\na b\n\nab c</w>\n", "line 3"},  // an empty line
      {"a b c\n", "line 1"},
      {"a  b\n", "line 1"},
      {" ab\n", "line 1"},
      {"ab \n", "line 1"},
      {"a z\n", "\"z\""},
      {"b a\n", "\"ba\""},
      {"a b\na b\n", "second time"},
      {"", "3 tokens"},
  };
  for (const auto& [text, part] : cases) {
    write(folder_ / "merges.txt", text);
    expect_bad({"merges.txt", part});
  }
  fs::remove(folder_ / "merges.txt");
  expect_bad({"merges.txt"}, ErrorCode::kNotFound);
}

TEST_F(ClipTokenizerTest, ReadsMergesWithWindowsLineEnds) {
  write(folder_ / "merges.txt", "#version: 0.2\r\na b\r\na b</w>\r\nab c</w>\r\n");
  EXPECT_EQ(ClipTokenizer(folder_).encode("abc", 3).ids, (std::vector<int64_t>{9, 8, 10}));
}

TEST_F(ClipTokenizerTest, RefusesMissingSpecialTokens) {
  write(folder_ / "tokenizer_config.json", R"({"bos_token": "<s>"})");
  expect_bad({"bos_token", "<s>"});
}

TEST_F(ClipTokenizerTest, RefusesAddedTokensThatContradictTheVocabulary) {
  write(folder_ / "tokenizer_config.json", R"({"added_tokens_decoder": {"4": {"content": "<|endoftext|>"}}})");
  expect_bad({"<|endoftext|>", "4", "10"});
}

TEST_F(ClipTokenizerTest, RefusesMalformedConfigs) {
  const std::vector<std::string> cases = {
      R"({"added_tokens_decoder": []})",
      R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})",
      R"({"added_tokens_decoder": {"-3": {"content": "<a>"}}})",
      R"({"added_tokens_decoder": {"99999999999999999999": {"content": "<a>"}}})",
      R"({"added_tokens_decoder": {"10": {}}})",
      R"({"added_tokens_decoder": {"10": {"content": ""}}})",
      R"({"added_tokens_decoder": {"10": {"content": "<a>", "lstrip": 1}}})",
      R"({"additional_special_tokens": "x"})",
      R"({"model_max_length": -1})",
      R"({"padding_side": "left"})",
      R"({"bos_token": 3})",
  };
  for (const std::string& text : cases) {
    write(folder_ / "tokenizer_config.json", text);
    expect_bad({"tokenizer_config.json"}, ErrorCode::kBadConfig);
  }
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string bytes_field(uint64_t number, const std::string& bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + bytes;
}

std::string piece(const std::string& text, float score, uint64_t type = 1) {
  std::string score_bytes(4, '\0');
  std::memcpy(score_bytes.data(), &score, 4);
  return bytes_field(1, bytes_field(1, text) + varint(2 << 3 | 5) + score_bytes + varint(3 << 3) + varint(type));
}

std::string unigram_file() {
  return piece("<pad>", 0, 3) + piece("</s>", 0, 3) + piece("<unk>", 0, 2) + piece("\u2581", -2) + piece("a", -3) +
         piece("b", -3) + piece("ab", -4) + piece("\u2581ab", -5);
}

class T5TokenizerTest : public TokenizerTest {
 protected:
  T5TokenizerTest() { write(folder_ / "spiece.model", unigram_file()); }
  void expect_bad(const std::string& file, std::initializer_list<std::string_view> parts) {
    write(folder_ / "spiece.model", file);
    expect_error(ErrorCode::kBadTokenizer, parts, [this] { T5Tokenizer{folder_}; });
  }
};

TEST_F(T5TokenizerTest, FindsTheBestSegmentationAndPads) {
  const T5Tokenizer tokenizer(folder_);
  // 8 pieces, then <extra_id_99> ... <extra_id_0>.
  EXPECT_EQ(tokenizer.encode(" ab  a</s>b<extra_id_0>", 10).ids,
            (std::vector<int64_t>{7, 3, 4, 1, 3, 5, 107, 1, 0, 0}));
  EXPECT_EQ(tokenizer.encode("zzz\u2581ab", 4).ids, (std::vector<int64_t>{3, 2, 7, 1}));
  EXPECT_EQ(tokenizer.encode("", 2).ids, (std::vector<int64_t>{1, 0}));
}

TEST_F(T5TokenizerTest, KeepsTheEndTokenOfALongPromptAndCountsWhatItDrops) {
  const TokenIds tokens = T5Tokenizer(folder_).encode("ab ab ab ab", 3);
  EXPECT_EQ(tokens.ids, (std::vector<int64_t>{7, 7, 1}));
  EXPECT_EQ(tokens.tokens_dropped, 2);
}

TEST_F(T5TokenizerTest, RefusesBadPrompts) {
  const T5Tokenizer tokenizer(folder_);
  expect_error(ErrorCode::kBadPrompt, {"65537"}, [&] { tokenizer.encode(std::string(65537, 'a'), 512); });
  expect_error(ErrorCode::kBadPrompt, {"byte 0"}, [&] { tokenizer.encode("\x80", 512); });
  expect_error(ErrorCode::kInvalidArgument, {"max_length 0"}, [&] { tokenizer.encode("a", 0); });
}

TEST_F(T5TokenizerTest, LongestPromptAsOneWordTakesBoundedTime) {
  const T5Tokenizer tokenizer(folder_);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_GT(tokenizer.encode(std::string(65536, 'a'), 512).tokens_dropped, 60000);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST_F(T5TokenizerTest, RefusesMalformedModels) {
  const std::string good = unigram_file();
  expect_bad("", {"spiece.model", "no pieces"});
  expect_bad("not a protocol buffer", {"spiece.model", "byte"});
  expect_bad(good + "\x0A", {"cut off"});
  expect_bad(good.substr(0, good.size() - 1), {"cut off"});
  expect_bad(good + std::string(11, '\xFF'), {"10 bytes"});
  expect_bad(good + std::string("\x02\x01", 2), {"field number 0"});
  expect_bad(good + "\x0B", {"wire type 3"});
  expect_bad(good + varint(9 << 3 | 1) + "1234", {"cut off"});
  expect_bad(good + piece("a", -1), {"piece 8", "second time"});
  expect_bad(good + piece("", -1), {"piece 8"});
  expect_bad(good + piece("\xFF", -1), {"piece 8", "\\xff"});
  expect_bad(good + piece("c", NAN), {"piece 8", "nan"});
  expect_bad(good + piece("c", -INFINITY), {"piece 8", "inf"});
  expect_bad(good + piece("c", -1, 7), {"type 7"});
  expect_bad(good + bytes_field(2, varint(3 << 3) + varint(2)), {"model type 2"});
  expect_bad(good + piece("<extra_id_3>", 0), {"<extra_id_3>"});
  expect_bad(piece("<pad>", 0, 3) + piece("<unk>", 0, 2) + piece("</s>", 0, 3), {"unknown piece"});
  expect_bad(piece("<pad>", 0, 3) + piece("x", 0, 3) + piece("<unk>", 0, 2), {"eos_token", "</s>"});
  fs::remove(folder_ / "spiece.model");
  expect_error(ErrorCode::kNotFound, {"spiece.model"}, [this] { T5Tokenizer{folder_}; });
}

TEST_F(T5TokenizerTest, EveryCutOfAModelIsRefusedOrAModel) {
  const std::string good = unigram_file();
  for (std::size_t size = 0; size < good.size(); ++size) {
    try {
      SentencePieceModel::parse(good.substr(0, size), "cut");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadTokenizer);
    }
  }
}

std::string normalizer(const std::string& charsmap) {
  return bytes_field(3, bytes_field(2, charsmap));
}

std::string unit(uint32_t value) {
  std::string bytes(4, '\0');
  for (std::size_t i = 0; i < 4; ++i) bytes[i] = static_cast<char>(value >> (8 * i));
  return bytes;
}

TEST_F(T5TokenizerTest, RefusesMalformedCharsmaps) {
  const std::string good = unigram_file();
  expect_bad(good + normalizer("abc"), {"precompiled_charsmap"});
  expect_bad(good + normalizer(unit(0)), {"precompiled_charsmap"});
  expect_bad(good + normalizer(unit(3) + "abc"), {"precompiled_charsmap"});
  expect_bad(good + normalizer(unit(0xFFFFFFFC) + unit(0)), {"precompiled_charsmap"});
  expect_bad(good + normalizer(unit(4) + unit(0) + "\xFF"), {"UTF-8"});
}

TEST(Charsmap, WalksTheTrieWithinItsBounds) {
  // Node 0's children lie at 1 ^ byte; only "a" (97) has one, at 96, with its leaf at 96 ^ 2.
  std::string trie(400, '\0');
  const auto set = [&](std::size_t at, uint32_t value) { trie.replace(at * 4, 4, unit(value)); };
  set(0, 1u << 10);
  set(96, (2u << 10) | (1u << 8) | 'a');
  set(98, 0x80000000u | 2);
  const std::string blob = unit(400) + trie + std::string("x\0yz\0", 5);
  EXPECT_EQ(Charsmap(blob, "test").normalize("aba"), "yzbyz");
  EXPECT_EQ(Charsmap({}, "test").normalize("aba"), "aba");

  set(98, 0x80000000u | 5);
  expect_error(ErrorCode::kBadTokenizer, {"no replacement starts at byte 5"},
               [&] { Charsmap(unit(400) + trie + std::string("x\0yz\0", 5), "test").normalize("a"); });
  set(96, (0x1FFFFFu << 10) | (1u << 8) | 'a');
  expect_error(ErrorCode::kBadTokenizer, {"of a trie of 100"},
               [&] { Charsmap(unit(400) + trie + std::string("x\0yz\0", 5), "test").normalize("a"); });
}

TEST(Unigram, TakesTheLargestSumOfScores) {
  const Unigram model(
      {{"<unk>", 0}, {"a", 0}, {"b", 0}, {"c", 0}, {"d", 0}, {"cd", 1}, {"ab", 2}, {"abc", 5}, {"abcd", 10}}, 0);
  std::vector<int64_t> ids;
  model.encode("abcdacdxx", ids);
  EXPECT_EQ(ids, (std::vector<int64_t>{8, 1, 5, 0}));
  EXPECT_EQ(model.find("cd"), 5);
  EXPECT_EQ(model.find("abcde"), -1);
}

}  // namespace
}  // namespace rtlynx::models
