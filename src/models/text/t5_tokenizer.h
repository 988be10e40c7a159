#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "models/text/added_tokens.h"
#include "models/text/charsmap.h"
#include "models/text/token_ids.h"
#include "models/text/unigram.h"

namespace rtlynx::models {

struct SentencePieceModel;

/// T5's tokenizer from a diffusers folder: spiece.model, tokenizer_config.json, special_tokens_map.json.
/// Gives the ids of transformers 5.17's T5Tokenizer (tokenizers 0.23), sentinels "<extra_id_N>" included, which follow
/// the pieces in falling order of N. tokenizer.json is not read.
class T5Tokenizer {
 public:
  /// Throws Error: kNotFound, kBadTokenizer, kBadConfig, naming the file and the place. As transformers has it, the
  /// unknown piece must have id 2.
  explicit T5Tokenizer(const std::filesystem::path& folder);

  /// Prompt, end token, then padding up to `max_length`; the end token stays when the prompt is cut.
  /// Throws Error(kBadPrompt) as check_prompt does, kInvalidArgument for a max_length below 1. Thread-safe.
  TokenIds encode(std::string_view prompt, int64_t max_length) const;

  /// The config's limit (512), 0 where it gives none.
  int64_t model_max_length() const { return model_max_length_; }

 private:
  T5Tokenizer(const std::filesystem::path& folder, const TokenizerConfig& config);
  T5Tokenizer(const std::filesystem::path& folder, const TokenizerConfig& config, const SentencePieceModel& model);
  void encode_text(std::string_view text, std::vector<int64_t>& ids) const;

  int64_t model_max_length_ = 0;
  std::shared_ptr<const Charsmap> charsmap_;  // held by added_ too
  Unigram unigram_;
  AddedTokens added_;
  int64_t eos_ = 0;
  int64_t pad_ = 0;
};

}  // namespace rtlynx::models
