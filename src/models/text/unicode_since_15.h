#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace rtlynx::models {

/// What Unicode has added since 15.0, the version of Debian 12's ICU, as far as token ids depend on it. Taken from the
/// behaviour of tokenizers 0.23.3: its regular expressions know Unicode 16, its lower case and its grapheme clusters
/// Unicode 17. tests/models/text/test_tokenizer_parity.py runs all code points through both.
struct CodePointRange {
  char32_t first = 0;
  char32_t last = 0;
  int32_t to_lower = 0;  ///< what lower case adds to the code point
};

constexpr std::array<CodePointRange, 22> kLettersSince15 = {
    {{0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
     {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
     {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
     {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
     {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}}};

constexpr std::array<CodePointRange, 7> kNumbersSince15 = {{{0x10D40, 0x10D49},
                                                            {0x116D0, 0x116E3},
                                                            {0x11BF0, 0x11BF9},
                                                            {0x16130, 0x16139},
                                                            {0x16D70, 0x16D79},
                                                            {0x1CCF0, 0x1CCF9},
                                                            {0x1E5F1, 0x1E5FA}}};

constexpr std::array<CodePointRange, 10> kCapitalsSince15 = {{{0x1C89, 0x1C89, 1},
                                                              {0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
                                                              {0xA7CC, 0xA7CC, 1},
                                                              {0xA7CE, 0xA7CE, 1},
                                                              {0xA7D2, 0xA7D2, 1},
                                                              {0xA7D4, 0xA7D4, 1},
                                                              {0xA7DA, 0xA7DA, 1},
                                                              {0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
                                                              {0x10D50, 0x10D65, 0x20},
                                                              {0x16EA0, 0x16EB8, 0x1B}}};

/// Only those of at most 3 bytes in UTF-8 matter: longer ones never share a short grapheme cluster.
constexpr std::array<CodePointRange, 3> kMarksSince15 = {{{0x897, 0x897}, {0x1ACF, 0x1ADD}, {0x1AE0, 0x1AEB}}};

/// The range that holds the code point, or nullptr.
template <std::size_t kSize>
constexpr const CodePointRange* find_range(const std::array<CodePointRange, kSize>& ranges, char32_t code_point) {
  const auto it = std::find_if(ranges.begin(), ranges.end(), [code_point](const CodePointRange& range) {
    return code_point >= range.first && code_point <= range.last;
  });
  return it == ranges.end() ? nullptr : &*it;
}

}  // namespace rtlynx::models
