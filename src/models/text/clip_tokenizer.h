#pragma once

#include <filesystem>
#include <string_view>

#include "models/text/added_tokens.h"
#include "models/text/byte_level_bpe.h"
#include "models/text/token_ids.h"

namespace rtlynx::models {

/// CLIP's tokenizer from a diffusers folder: vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json.
/// Gives the ids of transformers 5.17's CLIPTokenizer (tokenizers 0.23), special tokens in the text included.
class ClipTokenizer {
 public:
  /// Throws Error: kNotFound, kBadTokenizer, kBadConfig, naming the file and the place.
  explicit ClipTokenizer(const std::filesystem::path& folder);

  /// Start, prompt, end, then padding up to `max_length`; the end token stays when the prompt is cut.
  /// Throws Error(kBadPrompt) as check_prompt does, kInvalidArgument for a max_length below 2. Thread-safe.
  TokenIds encode(std::string_view prompt, int64_t max_length) const;

  /// The config's limit (77), 0 where it gives none.
  int64_t model_max_length() const { return config_.model_max_length; }

 private:
  TokenizerConfig config_;
  ByteLevelBpe bpe_;
  AddedTokens added_;
  int64_t bos_ = 0;
  int64_t eos_ = 0;
  int64_t pad_ = 0;
};

}  // namespace rtlynx::models
