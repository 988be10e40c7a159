#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace rtlynx::io {

/// The byte at which the first ill-formed sequence starts: overlong forms, surrogates, code points past U+10FFFF and
/// cut sequences count (Unicode 15, table 3-7). Nothing for valid UTF-8.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);
inline bool is_utf8(std::string_view text) {
  return !first_invalid_utf8(text);
}

/// The text in double quotes for a one-line message: control characters, quotes and ill-formed bytes as \xNN, and at
/// most `max_bytes` of it, then "...". A name out of an untrusted file must not steer the terminal.
std::string quote(std::string_view text, std::size_t max_bytes = 96);

}  // namespace rtlynx::io
