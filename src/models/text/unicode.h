#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace rtlynx::models {

/// Unicode as HuggingFace's tokenizers 0.23 see it: properties of Unicode 16, composition as in Unicode 9. Where the
/// ICU of the system is older or newer, the differences are made up for, so that token ids don't depend on the machine.
/// All UTF-8 arguments must be valid (io::is_utf8).

std::u32string code_points(std::string_view utf8);
void append_utf8(std::string& utf8, char32_t code_point);

bool is_letter(char32_t code_point);       ///< \p{L}
bool is_number(char32_t code_point);       ///< \p{N}
bool is_white_space(char32_t code_point);  ///< \s, the property White_Space
bool is_word(char32_t code_point);         ///< \w: alphabetic, mark, decimal digit, connector, joiner

/// Appends the full lower-case mapping, without regard to context (a final sigma stays a plain one).
void append_lower(std::string& utf8, char32_t code_point);

/// Canonical composition.
std::string nfc(std::string_view utf8);

/// The first byte of every extended grapheme cluster, then the text's size.
std::vector<std::size_t> grapheme_boundaries(std::string_view utf8);

}  // namespace rtlynx::models
