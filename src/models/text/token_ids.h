#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace rtlynx::models {

/// A prompt as a text encoder takes it.
struct TokenIds {
  std::vector<int64_t> ids;    ///< special tokens, prompt, and where a model pads, padding up to max_length
  int64_t tokens_dropped = 0;  ///< tokens of the prompt that did not fit
};

/// Longer prompts are refused before any work is done on them: some 16,000 tokens, where FLUX.1 reads 512 at most.
constexpr std::size_t kMaxPromptBytes = 64u << 10;

/// Throws Error(kBadPrompt) for a prompt that is longer than max_bytes or not valid UTF-8.
void check_prompt(std::string_view prompt, std::size_t max_bytes = kMaxPromptBytes);

/// Cuts `tokens` behind max_length. Throws Error(kInvalidArgument) unless 0 <= max_length <= 65,536.
TokenIds cut_tokens(std::vector<int64_t> tokens, int64_t max_length);

/// Cuts `tokens` so that it fits beside the special tokens, puts `prefix` and `suffix` around it and pads with `pad`.
/// Throws Error(kInvalidArgument) unless prefix and suffix fit into max_length and max_length <= 65,536.
TokenIds frame_tokens(std::vector<int64_t> tokens, const std::vector<int64_t>& prefix,
                      const std::vector<int64_t>& suffix, int64_t pad, int64_t max_length);

}  // namespace rtlynx::models
