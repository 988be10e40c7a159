#pragma once

#include <ATen/ATen.h>

#include <string_view>

#include "io/json.h"

namespace rtlynx::models {

/// The activations of text encoders, under transformers' names.
enum class Activation {
  kRelu,
  kSilu,
  kGelu,       ///< "gelu": with erf
  kGeluTanh,   ///< "gelu_new", "gelu_pytorch_tanh": the tanh approximation
  kQuickGelu,  ///< "quick_gelu": x * sigmoid(1.702 x)
};

/// Throws Error(kBadConfig) naming the config, the key and the name that it has there.
Activation parse_activation(const io::Config& config, std::string_view key, std::string_view name);

at::Tensor activate(Activation activation, const at::Tensor& x);

/// Throws Error(kInvalidArgument) unless `ids` is int64 [batch, tokens] with batch >= 1, 1 <= tokens <= max_tokens and
/// every id in [0, vocab_size).
void check_token_ids(const at::Tensor& ids, int64_t max_tokens, int64_t vocab_size);

}  // namespace rtlynx::models
