#include "models/text/qwen_prompt.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "rtlynx/status.h"

namespace rtlynx::models {

TokenIds prompt_ids(const PromptFormat& format, const QwenTokenizer& tokenizer, std::string_view prompt,
                    int64_t max_features) {
  check_prompt(prompt);
  if (max_features < 1 || max_features > format.max_features) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("max_features {} of a prompt; expected 1 to {}", max_features, format.max_features));
  }
  for (const char* token : {"<|im_start|>", "<|im_end|>"}) {
    if (tokenizer.find(token) < 0) {
      throw Error(ErrorCode::kBadTokenizer, fmt::format("the tokenizer lacks {} of the chat template", token));
    }
  }
  std::string text(format.before);
  text.append(prompt).append(format.after);
  TokenIds result = tokenizer.encode(text, format.dropped + max_features);
  // The template's end starts with a special token, so that its tokens are the same behind every prompt.
  const auto end = static_cast<int64_t>(tokenizer.encode(format.after, format.max_features).ids.size());
  result.tokens_dropped = std::max<int64_t>(0, result.tokens_dropped - end);
  return result;
}

at::Tensor prompt_features(const PromptFormat& format, const QwenTextModel& encoder, const TokenIds& ids) {
  const auto tokens = static_cast<int64_t>(ids.ids.size());
  if (tokens <= format.dropped) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} token ids of a prompt; expected more than {}", tokens, format.dropped));
  }
  const at::Tensor row = at::tensor(ids.ids, at::kLong).unsqueeze(0);
  return encoder(row).squeeze(0).narrow(0, format.dropped, tokens - format.dropped);
}

}  // namespace rtlynx::models
