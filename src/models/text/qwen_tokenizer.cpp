#include "models/text/qwen_tokenizer.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "io/utf8.h"
#include "models/text/unicode.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr std::size_t kMaxFileBytes = 32u << 20;  // Qwen2.5's tokenizer.json takes 11.4 MB

const std::map<std::string, std::string> kNamedTokens = {
    {"eos_token", "<|endoftext|>"}, {"pad_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"}};

/// The regular expression that next_word spells out.
constexpr std::string_view kSplit =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

[[noreturn]] void refuse(const std::string& place, const std::string& problem) {
  throw Error(ErrorCode::kBadTokenizer, fmt::format("{}: {}", place, problem));
}

/// transformers takes the vocabulary out of a tokenizer.json and the algorithm out of its class; here the file must
/// agree with the class, so that another tokenizer's file is not read as Qwen's.
void check_algorithm(const nlohmann::json& tokenizer, const std::string& origin) {
  if (!tokenizer.is_object()) refuse(origin, "expected an object");
  const auto expect = [&](const char* place, const nlohmann::json& wanted) {
    const nlohmann::json::json_pointer pointer(place);
    const nlohmann::json found = tokenizer.contains(pointer) ? tokenizer.at(pointer) : nlohmann::json();
    if (found != wanted) {
      refuse(origin, fmt::format("{} is {}; expected {} as Qwen2 and Qwen3 have it", place,
                                 io::quote(found.dump(-1, ' ', true)), wanted.dump(-1, ' ', true)));
    }
  };
  expect("/model/type", "BPE");
  expect("/normalizer/type", "NFC");
  expect("/pre_tokenizer/pretokenizers/0/pattern/Regex", kSplit);
  expect("/pre_tokenizer/pretokenizers/0/behavior", "Isolated");
  expect("/pre_tokenizer/pretokenizers/1/type", "ByteLevel");
  expect("/pre_tokenizer/pretokenizers/1/use_regex", false);
  for (const char* key : {"ignore_merges", "byte_fallback"}) {
    if (tokenizer["model"].value(key, nlohmann::json(false)) != false) {
      refuse(origin, fmt::format("model.{} is set; expected false as Qwen2 and Qwen3 have it", key));
    }
  }
}

enum class CharacterClass { kLineEnd, kSpace, kLetter, kNumber, kOther };

CharacterClass classify(char32_t point) {
  if (point == U'\r' || point == U'\n') return CharacterClass::kLineEnd;
  if (is_letter(point)) return CharacterClass::kLetter;
  if (is_number(point)) return CharacterClass::kNumber;
  return is_white_space(point) ? CharacterClass::kSpace : CharacterClass::kOther;
}

bool is_blank(CharacterClass kind) {
  return kind == CharacterClass::kSpace || kind == CharacterClass::kLineEnd;
}

/// What a letter of an English contraction is without regard to case; the long s folds to s.
char32_t fold(char32_t point) {
  constexpr char32_t kLongS = 0x17F;
  if (point == kLongS) return U's';
  return point >= U'A' && point <= U'Z' ? point - U'A' + U'a' : point;
}

/// The length of the contraction that `text` starts with, or 0.
std::size_t contraction(std::u32string_view text) {
  if (text.size() < 2 || text[0] != U'\'') return 0;
  const char32_t first = fold(text[1]);
  if (first == U's' || first == U't' || first == U'm' || first == U'd') return 2;
  if (text.size() < 3) return 0;
  const char32_t second = fold(text[2]);
  const bool is_long =
      (first == U'r' && second == U'e') || (first == U'v' && second == U'e') || (first == U'l' && second == U'l');
  return is_long ? 3 : 0;
}

/// The first place from `start` on that is not of the class.
std::size_t end_of_run(const std::vector<CharacterClass>& kinds, std::size_t start, CharacterClass kind) {
  while (start < kinds.size() && kinds[start] == kind) ++start;
  return start;
}

/// Where the white space that starts a word at `start` ends: behind its last line end; else before the last space if
/// something follows, which takes that space along; else at its end.
std::size_t end_of_blanks(const std::vector<CharacterClass>& kinds, std::size_t start) {
  std::size_t end = start;
  std::size_t behind_line_end = start;
  for (; end < kinds.size() && is_blank(kinds[end]); ++end) {
    if (kinds[end] == CharacterClass::kLineEnd) behind_line_end = end + 1;
  }
  if (behind_line_end > start) return behind_line_end;
  return end < kinds.size() && end - start > 1 ? end - 1 : end;
}

/// Where the word that starts at `start` ends, by the first alternative of kSplit that matches there.
std::size_t next_word(std::u32string_view points, const std::vector<CharacterClass>& kinds, std::size_t start) {
  if (const std::size_t size = contraction(points.substr(start))) return start + size;
  const CharacterClass kind = kinds[start];
  const bool leads_letters = kind == CharacterClass::kSpace || kind == CharacterClass::kOther;
  const std::size_t letters = start + (leads_letters ? 1 : 0);
  if (const std::size_t end = end_of_run(kinds, letters, CharacterClass::kLetter); end > letters) return end;
  if (kind == CharacterClass::kNumber) return start + 1;
  const std::size_t others = start + (points[start] == U' ' ? 1 : 0);
  if (const std::size_t end = end_of_run(kinds, others, CharacterClass::kOther); end > others) {
    return end_of_run(kinds, end, CharacterClass::kLineEnd);
  }
  return end_of_blanks(kinds, start);
}

}  // namespace

struct QwenTokenizer::Files {
  std::filesystem::path folder;
  TokenizerConfig config;
  ByteLevelBpe bpe;

  static Files read(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "tokenizer.json";
    if (!std::filesystem::exists(path)) {
      return {folder, TokenizerConfig::read(folder, kNamedTokens), ByteLevelBpe(folder, "")};
    }
    const nlohmann::json tokenizer = read_tokenizer_json(path, kMaxFileBytes);
    check_algorithm(tokenizer, path.string());
    return {folder, TokenizerConfig::read(folder, kNamedTokens, read_added_tokens(tokenizer, path.string())),
            ByteLevelBpe(tokenizer["model"], path.string() + ": model", "")};
  }
};

QwenTokenizer::QwenTokenizer(const std::filesystem::path& folder) : QwenTokenizer(Files::read(folder)) {}

QwenTokenizer::QwenTokenizer(Files files)
    : config_(std::move(files.config)),
      bpe_(std::move(files.bpe)),
      added_([&] {
        bpe_.refuse_missing_bytes();
        bpe_.refuse_unreachable(contents(config_.added));
        const auto find_in_vocabulary = [&](std::string_view token) { return bpe_.find(token); };
        resolve_ids(config_.added, bpe_.size(), find_in_vocabulary, files.folder);
        return AddedTokens(config_.added, nfc);
      }()),
      pad_(find(config_.named.at("pad_token"))) {}

int64_t QwenTokenizer::find(std::string_view token) const {
  const auto added = std::find_if(config_.added.begin(), config_.added.end(),
                                  [&](const AddedToken& candidate) { return candidate.content == token; });
  return added != config_.added.end() ? added->id : bpe_.find(token);
}

TokenIds QwenTokenizer::encode(std::string_view text, int64_t max_length) const {
  check_prompt(text, kMaxTextBytes);
  std::vector<int64_t> ids;
  for (const AddedTokens::Segment& segment : added_.split(text)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    const std::u32string points = code_points(segment.text);
    std::vector<CharacterClass> kinds(points.size());
    std::transform(points.begin(), points.end(), kinds.begin(), classify);
    for (std::size_t start = 0; start < points.size();) {
      const std::size_t end = next_word(points, kinds, start);
      std::string word;
      for (; start < end; ++start) append_utf8(word, points[start]);
      bpe_.encode(word, ids);
    }
  }
  return cut_tokens(std::move(ids), max_length);
}

}  // namespace rtlynx::models
