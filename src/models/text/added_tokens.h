#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rtlynx::models {

/// A token that is found in the prompt's text before the vocabulary's own algorithm sees it.
struct AddedToken {
  std::string content;
  int64_t id = -1;           ///< in tokenizer_config.json where it says so, else -1 until resolve_ids
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;       ///< takes the white space after it along
  bool normalized = false;   ///< sought in the normalised text, in its normalised form
};

/// What tokenizer_config.json and special_tokens_map.json of one tokenizer folder say.
struct TokenizerConfig {
  std::map<std::string, std::string> named;  ///< "bos_token" -> "<|startoftext|>", ...
  std::vector<AddedToken> added;             ///< declared ones by id, then the named ones, then additional ones
  int64_t model_max_length = 0;              ///< 0 where the files give none
  int64_t extra_ids = 100;                   ///< T5's sentinels

  /// As transformers 5.17 reads them: with added_tokens_decoder in tokenizer_config.json, special_tokens_map.json and
  /// `declared`, which is what tokenizer.json declares, are ignored. Both files may be missing. `named_defaults` are
  /// the names that the tokenizer's class gives its special tokens. Throws Error(kBadConfig).
  static TokenizerConfig read(const std::filesystem::path& folder, std::map<std::string, std::string> named_defaults,
                              std::vector<AddedToken> declared = {});
};

/// The added tokens of a tokenizer.json, by id. Throws Error(kBadConfig).
std::vector<AddedToken> read_added_tokens(const nlohmann::json& tokenizer, const std::string& origin);

/// What the tokens spell.
std::vector<std::string> contents(const std::vector<AddedToken>& tokens);

/// Gives every added token its id: the vocabulary's where it has the token, else the next free one. `find` returns -1
/// for an unknown token. Throws Error(kBadTokenizer) where that contradicts the id the config declares.
void resolve_ids(std::vector<AddedToken>& tokens, int64_t vocab_size,
                 const std::function<int64_t(std::string_view)>& find, const std::filesystem::path& folder);

/// Splits a prompt at the added tokens.
class AddedTokens {
 public:
  using Normalizer = std::function<std::string(std::string_view)>;
  AddedTokens(std::vector<AddedToken> tokens, Normalizer normalize);

  /// A token's id, or -1 and a stretch of normalised text.
  struct Segment {
    std::string text;
    int64_t id = -1;
  };
  std::vector<Segment> split(std::string_view prompt) const;

 private:
  /// The tokens of one pass, by first byte, longest first: the longest of the leftmost matches wins.
  using Patterns = std::array<std::vector<AddedToken>, 256>;
  static void add(Patterns& patterns, AddedToken token);
  static void split_at(const Patterns& patterns, std::string_view text, std::vector<Segment>& segments);

  Patterns raw_;
  Patterns normalized_;
  Normalizer normalize_;
};

}  // namespace rtlynx::models
