#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "models/text/added_tokens.h"
#include "models/text/byte_level_bpe.h"
#include "models/text/token_ids.h"

namespace rtlynx::models {

/// The tokenizer of Qwen2, Qwen2.5 and Qwen3 from a diffusers folder: tokenizer.json, or without one vocab.json and
/// merges.txt; tokenizer_config.json and special_tokens_map.json beside them. Gives the ids of transformers 5.17's
/// Qwen2Tokenizer (tokenizers 0.23), special tokens in the text included.
class QwenTokenizer {
 public:
  /// A prompt of kMaxPromptBytes still fits with a chat template around it.
  static constexpr std::size_t kMaxTextBytes = kMaxPromptBytes + 1024;

  /// Throws Error: kNotFound, kBadTokenizer, kBadConfig, naming the file and the place. A tokenizer.json that
  /// normalises or splits in another way is refused, and so is a vocabulary without one of the 256 bytes.
  explicit QwenTokenizer(const std::filesystem::path& folder);

  /// The text's tokens, at most the first `max_length` of them: no start or end token, no padding.
  /// Throws Error(kBadPrompt) for a text longer than kMaxTextBytes or not valid UTF-8, kInvalidArgument unless
  /// 0 <= max_length <= 65,536. Thread-safe.
  TokenIds encode(std::string_view text, int64_t max_length) const;

  /// The id of a token, added ones included; -1 for one that the tokenizer does not have.
  int64_t find(std::string_view token) const;
  /// What pads the shorter prompts of a batch.
  int64_t pad_id() const { return pad_; }
  /// The config's limit (131,072), 0 where it gives none.
  int64_t model_max_length() const { return config_.model_max_length; }

 private:
  struct Files;
  explicit QwenTokenizer(Files files);

  TokenizerConfig config_;
  ByteLevelBpe bpe_;
  AddedTokens added_;
  int64_t pad_ = 0;
};

}  // namespace rtlynx::models
