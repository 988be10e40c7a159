#include "models/text/token_ids.h"

#include <fmt/core.h>

#include <utility>

#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

void check_max_length(int64_t max_length, int64_t smallest) {
  constexpr int64_t kMaxLength = 65536;
  if (max_length < smallest || max_length > kMaxLength) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("max_length {} of a prompt; expected {} to {}", max_length, smallest, kMaxLength));
  }
}

}  // namespace

void check_prompt(std::string_view prompt, std::size_t max_bytes) {
  if (prompt.size() > max_bytes) {
    throw Error(ErrorCode::kBadPrompt,
                fmt::format("prompt of {} bytes; at most {} are read", prompt.size(), max_bytes));
  }
  if (const auto invalid = io::first_invalid_utf8(prompt)) {
    throw Error(ErrorCode::kBadPrompt, fmt::format("prompt is not valid UTF-8 at byte {}", *invalid));
  }
}

TokenIds cut_tokens(std::vector<int64_t> tokens, int64_t max_length) {
  check_max_length(max_length, 0);
  TokenIds result;
  const auto room = static_cast<std::size_t>(max_length);
  if (tokens.size() > room) {
    result.tokens_dropped = static_cast<int64_t>(tokens.size() - room);
    tokens.resize(room);
  }
  result.ids = std::move(tokens);
  return result;
}

TokenIds frame_tokens(std::vector<int64_t> tokens, const std::vector<int64_t>& prefix,
                      const std::vector<int64_t>& suffix, int64_t pad, int64_t max_length) {
  const auto special = static_cast<int64_t>(prefix.size() + suffix.size());
  check_max_length(max_length, special);
  TokenIds result = cut_tokens(std::move(tokens), max_length - special);
  result.ids.insert(result.ids.begin(), prefix.begin(), prefix.end());
  result.ids.insert(result.ids.end(), suffix.begin(), suffix.end());
  result.ids.resize(static_cast<std::size_t>(max_length), pad);
  return result;
}

}  // namespace rtlynx::models
