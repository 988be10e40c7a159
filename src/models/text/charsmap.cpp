#include "models/text/charsmap.h"

#include <fmt/core.h>

#include <algorithm>

#include "io/utf8.h"
#include "models/text/unicode.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

uint32_t read_unit(std::string_view bytes) {
  uint32_t unit = 0;
  for (std::size_t i = 0; i < 4; ++i) unit |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  return unit;
}

// The fields of a double array's unit, as Darts-clone packs them.
bool has_leaf(uint32_t unit) {
  return ((unit >> 8) & 1) != 0;
}
uint32_t leaf_value(uint32_t unit) {
  return unit & 0x7FFFFFFF;
}
uint32_t label(uint32_t unit) {
  return unit & 0x800000FF;
}
uint32_t offset(uint32_t unit) {
  return (unit >> 10) << ((unit & 0x200) >> 6);
}

}  // namespace

Charsmap::Charsmap(std::string_view blob, const std::string& origin) : origin_(origin) {
  if (blob.empty()) return;
  const std::size_t trie_bytes = blob.size() < 4 ? 0 : read_unit(blob);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > blob.size() - 4) {
    throw Error(ErrorCode::kBadTokenizer, fmt::format("{}: precompiled_charsmap of {} bytes has a trie of {} bytes",
                                                      origin_, blob.size(), trie_bytes));
  }
  for (std::size_t at = 4; at < 4 + trie_bytes; at += 4) trie_.push_back(read_unit(blob.substr(at)));
  replacements_ = blob.substr(4 + trie_bytes);
  if (const auto invalid = io::first_invalid_utf8(replacements_)) {
    throw Error(ErrorCode::kBadTokenizer,
                fmt::format("{}: precompiled_charsmap: replacements are not UTF-8 at byte {}", origin_, *invalid));
  }
}

std::optional<std::string_view> Charsmap::replacement(std::string_view key) const {
  const auto unit_at = [&](uint32_t position) {
    if (position >= trie_.size()) {
      throw Error(ErrorCode::kBadTokenizer,
                  fmt::format("{}: precompiled_charsmap: unit {} of a trie of {}", origin_, position, trie_.size()));
    }
    return trie_[position];
  };
  uint32_t position = offset(unit_at(0));
  for (const char character : key) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte == 0) break;
    position ^= byte;
    const uint32_t unit = unit_at(position);
    if (label(unit) != byte) break;
    position ^= offset(unit);
    if (!has_leaf(unit)) continue;
    const std::size_t start = leaf_value(unit_at(position));
    // A start within a character would make ill-formed text.
    if (start >= replacements_.size() || (static_cast<unsigned char>(replacements_[start]) & 0xC0) == 0x80) {
      throw Error(ErrorCode::kBadTokenizer,
                  fmt::format("{}: precompiled_charsmap: no replacement starts at byte {}", origin_, start));
    }
    return std::string_view(replacements_).substr(start, replacements_.find('\0', start) - start);
  }
  return std::nullopt;
}

std::string Charsmap::normalize(std::string_view text) const {
  constexpr std::size_t kWholeClusterBytes = 6;
  if (trie_.empty() || text.empty()) return std::string(text);
  std::string result;
  const std::vector<std::size_t> boundaries = grapheme_boundaries(text);
  for (std::size_t i = 0; i + 1 < boundaries.size(); ++i) {
    const std::string_view cluster = text.substr(boundaries[i], boundaries[i + 1] - boundaries[i]);
    if (cluster.size() < kWholeClusterBytes) {
      if (const auto found = replacement(cluster)) {
        result += *found;
        continue;
      }
    }
    for (const char32_t point : code_points(cluster)) {
      std::string character;
      append_utf8(character, point);
      result += replacement(character).value_or(character);
    }
  }
  return result;
}

}  // namespace rtlynx::models
