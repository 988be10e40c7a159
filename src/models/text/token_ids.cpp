#include "models/text/token_ids.h"

#include <fmt/core.h>

#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::models {

void check_prompt(std::string_view prompt) {
  if (prompt.size() > kMaxPromptBytes) {
    throw Error(ErrorCode::kBadPrompt,
                fmt::format("prompt of {} bytes; at most {} are read", prompt.size(), kMaxPromptBytes));
  }
  if (const auto invalid = io::first_invalid_utf8(prompt)) {
    throw Error(ErrorCode::kBadPrompt, fmt::format("prompt is not valid UTF-8 at byte {}", *invalid));
  }
}

TokenIds frame_tokens(std::vector<int64_t> tokens, const std::vector<int64_t>& prefix,
                      const std::vector<int64_t>& suffix, int64_t pad, int64_t max_length) {
  constexpr int64_t kMaxLength = 65536;
  const int64_t special = static_cast<int64_t>(prefix.size() + suffix.size());
  if (max_length < special || max_length > kMaxLength) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("max_length {} of a prompt; expected {} to {}", max_length, special, kMaxLength));
  }
  TokenIds result;
  const auto room = static_cast<std::size_t>(max_length - special);
  if (tokens.size() > room) {
    result.tokens_dropped = static_cast<int64_t>(tokens.size() - room);
    tokens.resize(room);
  }
  result.ids.reserve(static_cast<std::size_t>(max_length));
  for (const std::vector<int64_t>* part : {&prefix, static_cast<const std::vector<int64_t>*>(&tokens), &suffix}) {
    result.ids.insert(result.ids.end(), part->begin(), part->end());
  }
  result.ids.resize(static_cast<std::size_t>(max_length), pad);
  return result;
}

}  // namespace rtlynx::models
