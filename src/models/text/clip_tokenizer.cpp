#include "models/text/clip_tokenizer.h"

#include <fmt/core.h>

#include <array>
#include <string>
#include <vector>

#include "io/utf8.h"
#include "models/text/unicode.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

const std::map<std::string, std::string> kNamedTokens = {{"bos_token", "<|startoftext|>"},
                                                         {"eos_token", "<|endoftext|>"},
                                                         {"pad_token", "<|endoftext|>"},
                                                         {"unk_token", "<|endoftext|>"}};

/// NFC, every run of white space to one space, lower case.
std::string clean(std::string_view text) {
  std::string result;
  bool in_space = false;
  for (const char32_t point : code_points(nfc(text))) {
    const bool is_space = is_white_space(point);
    if (!is_space) {
      append_lower(result, point);
    } else if (!in_space) {
      result += ' ';
    }
    in_space = is_space;
  }
  return result;
}

enum class CharacterClass { kSpace, kLetter, kNumber, kOther };

CharacterClass classify(char32_t point) {
  if (is_letter(point)) return CharacterClass::kLetter;
  if (is_number(point)) return CharacterClass::kNumber;
  return is_white_space(point) ? CharacterClass::kSpace : CharacterClass::kOther;
}

/// The fixed spellings that come before the character classes. The special tokens' own spelling in a text that got
/// here (as "<|ENDOFTEXT|>" does) is no special token any more; ByteLevel then parts it at its letters.
constexpr std::array<std::u32string_view, 9> kFixed = {
    U"<|startoftext|>", U"<|endoftext|>", U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"};

/// Calls word(begin, end) for each word of `points`:
/// the fixed spellings, runs of letters, single numbers, runs of what is neither letter, number nor space.
template <class Word>
void split_words(std::u32string_view points, const Word& word) {
  for (std::size_t at = 0; at < points.size();) {
    std::size_t size = 0;
    for (const std::u32string_view fixed : kFixed) {
      if (points.substr(at).starts_with(fixed)) {
        size = fixed.size();
        break;
      }
    }
    if (size > 3) {
      word(at, at + 2);
      word(at + 2, at + size - 2);
      word(at + size - 2, at + size);
    } else if (size > 0) {
      word(at, at + size);
    } else {
      const CharacterClass kind = classify(points[at]);
      size = 1;
      if (kind == CharacterClass::kLetter || kind == CharacterClass::kOther) {
        while (at + size < points.size() && classify(points[at + size]) == kind) ++size;
      }
      if (kind != CharacterClass::kSpace) word(at, at + size);
    }
    at += size;
  }
}

}  // namespace

ClipTokenizer::ClipTokenizer(const std::filesystem::path& folder)
    : config_(TokenizerConfig::read(folder, kNamedTokens)),
      bpe_(folder, "</w>"),
      added_([&] {
        for (const auto& [key, content] : config_.named) {
          if (bpe_.find(content) < 0) {
            throw Error(ErrorCode::kBadTokenizer,
                        fmt::format("{}: {} {} is missing", (folder / "vocab.json").string(), key, io::quote(content)));
          }
        }
        bpe_.refuse_unreachable(contents(config_.added));
        resolve_ids(
            config_.added, bpe_.size(), [&](std::string_view token) { return bpe_.find(token); }, folder);
        return AddedTokens(config_.added, clean);
      }()),
      bos_(bpe_.find(config_.named.at("bos_token"))),
      eos_(bpe_.find(config_.named.at("eos_token"))),
      pad_(bpe_.find(config_.named.at("pad_token"))) {
  bpe_.set_unknown(bpe_.find(config_.named.at("unk_token")));
}

TokenIds ClipTokenizer::encode(std::string_view prompt, int64_t max_length) const {
  check_prompt(prompt);
  std::vector<int64_t> ids;
  for (const AddedTokens::Segment& segment : added_.split(prompt)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    const std::u32string points = code_points(segment.text);
    split_words(points, [&](std::size_t begin, std::size_t end) {
      std::string word;
      for (const char32_t point : std::u32string_view(points).substr(begin, end - begin)) append_utf8(word, point);
      bpe_.encode(word, ids);
    });
  }
  return frame_tokens(std::move(ids), {bos_}, {eos_}, pad_, max_length);
}

}  // namespace rtlynx::models
