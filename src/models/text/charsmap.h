#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rtlynx::models {

/// sentencepiece's precompiled normalisation map (for T5: nmt_nfkc), applied as HuggingFace's tokenizers apply it:
/// to each grapheme cluster of less than 6 bytes as a whole, by the *shortest* prefix that the map knows, the cluster's
/// rest being dropped; else character by character. sentencepiece itself goes by the longest prefix at each byte.
class Charsmap {
 public:
  /// `blob`: 4 bytes of trie size, the trie (a double array of 32-bit units, little-endian), the replacements, each
  /// ended by a zero byte. Empty: nothing is replaced. Throws Error(kBadTokenizer).
  Charsmap(std::string_view blob, const std::string& origin);

  /// Valid UTF-8 in, valid UTF-8 out. Throws Error(kBadTokenizer) where the trie points out of itself.
  std::string normalize(std::string_view text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view key) const;

  std::vector<uint32_t> trie_;
  std::string replacements_;
  std::string origin_;
};

}  // namespace rtlynx::models
