#include "io/utf8.h"

#include <fmt/core.h>

namespace rtlynx::io {
namespace {

/// Bytes of the well-formed sequence that starts at text[at]; 0 where there is none.
std::size_t sequence_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned lead = byte(at);
  const unsigned second = byte(at + 1);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4 || !continues(at + 1)) return 0;
  if (lead < 0xE0) return 2;
  if (!continues(at + 2)) return 0;
  if (lead < 0xF0) {
    const bool overlong = lead == 0xE0 && second < 0xA0;
    const bool surrogate = lead == 0xED && second > 0x9F;
    return overlong || surrogate ? 0 : 3;
  }
  const bool overlong = lead == 0xF0 && second < 0x90;
  const bool too_large = lead == 0xF4 && second > 0x8F;
  return overlong || too_large || !continues(at + 3) ? 0 : 4;
}

}  // namespace

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = sequence_length(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::nullopt;
}

std::string quote(std::string_view text, std::size_t max_bytes) {
  std::string quoted = "\"";
  std::size_t at = 0;
  while (at < text.size() && at < max_bytes) {
    const std::size_t length = sequence_length(text, at);
    const auto byte = static_cast<unsigned char>(text[at]);
    // C1 controls (U+0080 to U+009F) are two bytes, the first 0xC2; terminals obey them too.
    const bool c1_control = length == 2 && byte == 0xC2 && static_cast<unsigned char>(text[at + 1]) < 0xA0;
    if (length == 0 || byte < 0x20 || byte == 0x7F || byte == '"' || byte == '\\' || c1_control) {
      quoted += fmt::format("\\x{:02x}", byte);
      at += 1;
    } else {
      quoted += text.substr(at, length);
      at += length;
    }
  }
  quoted += '"';
  return at < text.size() ? quoted + "..." : quoted;
}

}  // namespace rtlynx::io
