#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace rtlynx::models {

/// io::read_json with Error(kBadTokenizer) in place of kBadJson.
nlohmann::json read_tokenizer_json(const std::filesystem::path& path, std::size_t max_bytes);

/// Byte-pair encoding over bytes that are spelled as printable characters (GPT-2's alphabet), with a suffix that marks
/// a word's last symbol (CLIP's "</w>"; Qwen has none).
class ByteLevelBpe {
 public:
  /// Reads vocab.json and merges.txt of a tokenizer folder. Throws Error(kBadTokenizer) naming file and line or entry:
  /// an id that is negative, no integer or used twice; a line that is no pair; a pair that repeats or whose parts or
  /// result the vocabulary lacks.
  ByteLevelBpe(const std::filesystem::path& folder, std::string suffix);
  /// Reads the vocabulary and the merges, "a b" or ["a", "b"], of a tokenizer.json's "model". `origin` names it in
  /// messages. Throws Error(kBadTokenizer) for the same reasons.
  ByteLevelBpe(const nlohmann::json& model, const std::string& origin, std::string suffix);

  /// Throws Error(kBadTokenizer) where the vocabulary has a token that is no byte, no result of a merge and not in
  /// `special`: that is how merges that were cut off at a line's end show.
  void refuse_unreachable(const std::vector<std::string>& special) const;
  /// Throws Error(kBadTokenizer) where the vocabulary lacks one of the 256 bytes.
  void refuse_missing_bytes() const;
  /// The id that stands for bytes which the vocabulary does not have.
  void set_unknown(int64_t id);
  /// Appends the ids of one word, given as UTF-8; n log n in its length.
  void encode(std::string_view word, std::vector<int64_t>& ids) const;
  /// -1 for a token that the vocabulary does not have.
  int64_t find(std::string_view token) const;
  /// The number of entries of vocab.json.
  int64_t size() const { return static_cast<int64_t>(vocab_.size()); }

 private:
  struct Merge {
    uint32_t rank = 0;
    int32_t result = 0;
  };
  const Merge* find_merge(int32_t left, int32_t right) const;
  void read_vocab(const nlohmann::json& vocab);
  void read_merges(std::string_view text);
  void read_merges(const nlohmann::json& merges);
  /// Of lower rank than those before it; `place` names it in messages.
  void add_merge(const std::string& left, const std::string& right, const std::string& place);

  std::string vocab_origin_;
  std::string merges_origin_;
  std::unordered_map<std::string, int32_t> vocab_;
  std::unordered_map<uint64_t, Merge> merges_;
  std::array<int32_t, 256> byte_ids_{};  ///< within a word
  std::array<int32_t, 256> last_byte_ids_{};
  std::string suffix_;
};

}  // namespace rtlynx::models
