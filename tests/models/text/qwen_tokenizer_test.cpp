#include <fmt/core.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/qwen_prompt.h"
#include "models/text/qwen_tokenizer.h"
#include "models/text/unicode.h"
#include "tests/models/text/tokenizer_fixture.h"

namespace rtlynx::models {
namespace {

using rtlynx::testing::expect_error;

using nlohmann::json;

constexpr int64_t kHe = 256;
constexpr int64_t kSpaceX = 257;
constexpr int64_t kCutLongSX = 258;  // the last byte of a long s, and x
constexpr int64_t kStart = 259;      // <|im_start|>
constexpr int64_t kEnd = 260;

/// GPT-2's spelling of a byte; those of the printable ASCII characters are their own.
std::string spelling(char32_t byte) {
  static const std::vector<std::string> spellings = [] {
    std::vector<std::string> result(256);
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      append_utf8(result[b], printable ? b : next++);
    }
    return result;
  }();
  return spellings.at(byte);
}

/// The bytes under their own numbers, "he", " x", the end of a long s with an x, and the chat template's tokens.
json tokenizer_json() {
  json vocab = json::object();
  for (char32_t byte = 0; byte < 256; ++byte) vocab[spelling(byte)] = byte;
  json merges = json::array({json::array({"h", "e"}), spelling(' ') + " x", json::array({spelling(0xBF), "x"})});
  vocab["he"] = kHe;
  vocab[spelling(' ') + "x"] = kSpaceX;
  vocab[spelling(0xBF) + "x"] = kCutLongSX;
  const std::string split =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  return {{"added_tokens",
           {{{"id", kStart}, {"content", "<|im_start|>"}, {"special", true}, {"normalized", false}},
            {{"id", kEnd}, {"content", "<|im_end|>"}, {"special", true}, {"normalized", false}}}},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"}, {"pattern", {{"Regex", split}}}, {"behavior", "Isolated"}},
              {{"type", "ByteLevel"}, {"use_regex", false}}}}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

class QwenTokenizerTest : public TokenizerTest {
 protected:
  QwenTokenizerTest() { write_json(tokenizer_json()); }
  void write_json(const json& tokenizer) { write(folder_ / "tokenizer.json", tokenizer.dump()); }
  std::vector<int64_t> ids(const std::string& text) const { return QwenTokenizer(folder_).encode(text, 4096).ids; }
  void expect_bad(const json& tokenizer, std::initializer_list<std::string_view> parts,
                  ErrorCode code = ErrorCode::kBadTokenizer) {
    write_json(tokenizer);
    expect_error(code, parts, [this] { QwenTokenizer{folder_}; });
  }
};

TEST_F(QwenTokenizerTest, MergesWithinWordsOnly) {
  EXPECT_EQ(ids("he x"), (std::vector<int64_t>{kHe, kSpaceX}));
  EXPECT_EQ(ids("\u00E9"), ids("e\u0301"));
  EXPECT_EQ(ids("  x"), (std::vector<int64_t>{' ', kSpaceX}));
  EXPECT_EQ(ids("a<|im_end|>he"), (std::vector<int64_t>{'a', kEnd, kHe}));
  EXPECT_TRUE(ids("").empty());
}

TEST_F(QwenTokenizerTest, TakesTheLongSForAnSInContractions) {
  EXPECT_EQ(ids("a\u017Fx").back(), kCutLongSX);
  EXPECT_EQ(ids("'\u017Fx").back(), 'x');
}

TEST_F(QwenTokenizerTest, CutsWithoutPaddingAndCountsWhatItDrops) {
  const QwenTokenizer tokenizer(folder_);
  const TokenIds tokens = tokenizer.encode("abc", 2);
  EXPECT_EQ(tokens.ids, (std::vector<int64_t>{'a', 'b'}));
  EXPECT_EQ(tokens.tokens_dropped, 1);
  EXPECT_EQ(tokenizer.encode("abc", 65536).ids.size(), 3U);
  EXPECT_EQ(tokenizer.encode("abc", 0).tokens_dropped, 3);
}

TEST_F(QwenTokenizerTest, ReadsTheOlderFilesToo) {
  const std::vector<int64_t> expected = ids("he x'\u017Fx <|im_start|>");
  const json model = tokenizer_json()["model"];
  fs::remove(folder_ / "tokenizer.json");
  write(folder_ / "vocab.json", model["vocab"].dump());
  write(folder_ / "merges.txt", fmt::format("#version: 0.2\nh e\n{} x\n{} x\n", spelling(' '), spelling(0xBF)));
  write(folder_ / "tokenizer_config.json", R"({"added_tokens_decoder": {
      "259": {"content": "<|im_start|>", "special": true}, "260": {"content": "<|im_end|>", "special": true}}})");
  EXPECT_EQ(ids("he x'\u017Fx <|im_start|>"), expected);
  fs::remove(folder_ / "merges.txt");
  expect_error(ErrorCode::kNotFound, {"merges.txt"}, [this] { QwenTokenizer{folder_}; });
}

TEST_F(QwenTokenizerTest, FindsTokens) {
  const QwenTokenizer tokenizer(folder_);
  EXPECT_EQ(tokenizer.find("he"), kHe);
  EXPECT_EQ(tokenizer.find("<|im_end|>"), kEnd);
  EXPECT_EQ(tokenizer.find("<|endoftext|>"), kEnd + 1);  // the class's default, beyond what the files name
  EXPECT_EQ(tokenizer.pad_id(), kEnd + 1);
  EXPECT_EQ(tokenizer.find("<none>"), -1);
}

TEST_F(QwenTokenizerTest, RefusesBadPrompts) {
  const QwenTokenizer tokenizer(folder_);
  const std::size_t most = QwenTokenizer::kMaxTextBytes;
  expect_error(ErrorCode::kBadPrompt, {"1048576", std::to_string(most)},
               [&] { tokenizer.encode(std::string(1 << 20, 'a'), 512); });
  expect_error(ErrorCode::kBadPrompt, {"UTF-8", "byte 1"}, [&] { tokenizer.encode("a\xC3(", 512); });
  expect_error(ErrorCode::kInvalidArgument, {"max_length -1"}, [&] { tokenizer.encode("a", -1); });
  expect_error(ErrorCode::kInvalidArgument, {"max_length"}, [&] { tokenizer.encode("a", 65537); });
  expect_error(ErrorCode::kBadPrompt, {"65537", "65536"},
               [&] { prompt_ids(kZImagePrompt, tokenizer, std::string(65537, 'a'), 512); });
  EXPECT_EQ(prompt_ids(kQwenImagePrompt, tokenizer, std::string(65536, 'a'), 1024).ids.size(), 1058U);
}

TEST_F(QwenTokenizerTest, LongestTextsTakeBoundedTime) {
  const QwenTokenizer tokenizer(folder_);
  const auto start = std::chrono::steady_clock::now();
  for (const char* unit : {"a", "he", " ", "\n", " \n", "!", "1", "'", "'s", "\u0301", "<|im_end|>", "<|im_end"}) {
    std::string text;
    while (text.size() + std::string_view(unit).size() <= QwenTokenizer::kMaxTextBytes) text += unit;
    EXPECT_GT(tokenizer.encode(text, 512).tokens_dropped, 3000) << unit;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST_F(QwenTokenizerTest, RefusesFilesOfOtherTokenizers) {
  const std::vector<std::pair<const char*, json>> cases = {
      {"/model/type", "Unigram"},
      {"/model/ignore_merges", true},
      {"/model/byte_fallback", true},
      {"/normalizer", nullptr},
      {"/normalizer/type", "NFKC"},
      {"/pre_tokenizer", json::array({1})},
      {"/pre_tokenizer/pretokenizers", "x"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", R"(\w+)"},
      {"/pre_tokenizer/pretokenizers/0/behavior", "Removed"},
      {"/pre_tokenizer/pretokenizers/1/use_regex", true},
  };
  for (const auto& [place, value] : cases) {
    json tokenizer = tokenizer_json();
    tokenizer[json::json_pointer(place)] = value;
    expect_bad(tokenizer, {"tokenizer.json", "Qwen"});
  }
  expect_bad(json::array(), {"tokenizer.json", "object"});
}

TEST_F(QwenTokenizerTest, RefusesMalformedVocabulariesAndMerges) {
  const auto with = [](const char* place, const json& value) {
    json tokenizer = tokenizer_json();
    tokenizer[json::json_pointer(place)] = value;
    return tokenizer;
  };
  expect_bad(with("/model/vocab", json::array()), {"model.vocab", "object"});
  expect_bad(with("/model/vocab/he", -1), {"model.vocab", "\"he\"", "-1"});
  expect_bad(with("/model/vocab/he", 3), {"model.vocab", "same id 3"});
  expect_bad(with("/model/vocab/hex", 1000), {"model.merges", "\"hex\"", "id 1000"});
  expect_bad(with("/model/merges", "h e"), {"model.merges", "array"});
  expect_bad(with("/model/merges/0", "h  e"), {"model.merges[0]", "two tokens"});
  expect_bad(with("/model/merges/0", json::array({"h", 1})), {"model.merges[0]", "two tokens"});
  expect_bad(with("/model/merges/0", "h z"), {"model.merges[0]", "\"hz\""});
  expect_bad(with("/model/merges/3", "h e"), {"model.merges[3]", "second time"});
  json tokenizer = tokenizer_json();
  tokenizer["model"]["vocab"].erase("z");
  expect_bad(tokenizer, {"model.vocab", "byte 122"});
  tokenizer["model"].erase("merges");
  expect_bad(tokenizer, {"merges is missing"});
  write(folder_ / "tokenizer.json", "{");
  expect_error(ErrorCode::kBadTokenizer, {"tokenizer.json", "syntax"}, [this] { QwenTokenizer{folder_}; });
}

TEST_F(QwenTokenizerTest, RefusesMalformedAddedTokens) {
  for (const json& value :
       {json("x"), json::array({"<a>"}), json::array({{{"content", "<a>"}}}),
        json::array({{{"content", ""}, {"id", 261}}}), json::array({{{"content", "a"}, {"id", -1}}})}) {
    json tokenizer = tokenizer_json();
    tokenizer["added_tokens"] = value;
    expect_bad(tokenizer, {"tokenizer.json: added_tokens"}, ErrorCode::kBadConfig);
  }
  json tokenizer = tokenizer_json();
  tokenizer["added_tokens"][0]["id"] = 300;
  expect_bad(tokenizer, {"<|im_end|>", "260", "259"});
}

TEST_F(QwenTokenizerTest, PutsPromptsIntoTheChatTemplate) {
  const QwenTokenizer tokenizer(folder_);
  const TokenIds tokens = prompt_ids(kZImagePrompt, tokenizer, "he", 512);
  EXPECT_EQ(tokens.ids, (std::vector<int64_t>{kStart, 'u', 's', 'e', 'r', '\n', kHe, kEnd, '\n', kStart,
                                              'a',    's', 's', 'i', 's', 't',  'a', 'n',  't',  '\n'}));
  EXPECT_EQ(tokens.tokens_dropped, 0);
  // Cut within the template's end, then within the prompt.
  EXPECT_EQ(prompt_ids(kZImagePrompt, tokenizer, "he", 7).tokens_dropped, 0);
  EXPECT_EQ(prompt_ids(kZImagePrompt, tokenizer, "he", 6).tokens_dropped, 1);
  for (const int64_t count : {0, -1, 513}) {
    expect_error(ErrorCode::kInvalidArgument, {"max_features", "512"},
                 [&] { prompt_ids(kZImagePrompt, tokenizer, "he", count); });
  }
}

TEST_F(QwenTokenizerTest, RefusesATokenizerWithoutTheTemplatesTokens) {
  json tokenizer = tokenizer_json();
  tokenizer["added_tokens"].erase(1);
  write_json(tokenizer);
  expect_error(ErrorCode::kBadTokenizer, {"<|im_end|>"},
               [&] { prompt_ids(kZImagePrompt, QwenTokenizer(folder_), "he", 512); });
}

}  // namespace
}  // namespace rtlynx::models
