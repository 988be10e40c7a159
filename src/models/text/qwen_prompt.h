#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string_view>

#include "models/text/qwen_text_model.h"
#include "models/text/qwen_tokenizer.h"

namespace rtlynx::models {

/// What a pipeline of diffusers 0.42.1 makes of a prompt for its Qwen text encoder.
struct PromptFormat {
  std::string_view before;   ///< chat template up to the prompt
  std::string_view after;    ///< and behind it
  int64_t dropped = 0;       ///< how many features of `before` the transformer is not given
  int64_t max_features = 0;  ///< the pipeline's own limit on what the transformer is given
  HiddenState hidden_state = HiddenState::kLast;
};

/// QwenImagePipeline.
constexpr PromptFormat kQwenImagePrompt = {
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n", 34, 1024, HiddenState::kLast};

/// ZImagePipeline: Qwen3's chat template with one message of the user and thinking enabled.
constexpr PromptFormat kZImagePrompt = {"<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", 0, 512,
                                        HiddenState::kSecondToLast};

/// The ids of the prompt in its format, at most `dropped + max_features` of them; tokens_dropped counts those of the
/// prompt alone. Throws Error(kBadPrompt) as check_prompt does, kBadTokenizer where the tokenizer lacks a token of the
/// chat template, kInvalidArgument unless 1 <= max_features <= the format's.
TokenIds prompt_ids(const PromptFormat& format, const QwenTokenizer& tokenizer, std::string_view prompt,
                    int64_t max_features);

/// The features that the transformer is given, [tokens - dropped, hidden_size]: of one prompt, without padding, so that
/// they do not depend on the other prompts of a batch. `ids` are prompt_ids' and more than `dropped`, else
/// Error(kInvalidArgument). Deterministic.
at::Tensor prompt_features(const PromptFormat& format, const QwenTextModel& encoder, const TokenIds& ids);

}  // namespace rtlynx::models
