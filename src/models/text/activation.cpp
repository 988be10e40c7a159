#include "models/text/activation.h"

#include <c10/util/StringUtil.h>
#include <fmt/core.h>

#include <array>
#include <utility>

#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::models {

Activation parse_activation(const io::Config& config, std::string_view key, std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Activation>, 6> kNames = {
      {{"relu", Activation::kRelu},
       {"silu", Activation::kSilu},
       {"gelu", Activation::kGelu},
       {"gelu_new", Activation::kGeluTanh},
       {"gelu_pytorch_tanh", Activation::kGeluTanh},
       {"quick_gelu", Activation::kQuickGelu}}};
  for (const auto& [known, activation] : kNames) {
    if (name == known) return activation;
  }
  throw Error(ErrorCode::kBadConfig,
              fmt::format("{}: {} names the activation {}; expected relu, silu, gelu, gelu_new or quick_gelu",
                          config.origin(), key, io::quote(name)));
}

at::Tensor activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kRelu: return at::relu(x);
    case Activation::kSilu: return at::silu(x);
    case Activation::kGelu: return at::gelu(x);
    // transformers spells gelu_new out in seven operations, each of them rounded; in one it is nearer to the formula.
    case Activation::kGeluTanh: return at::gelu(x, "tanh");
    case Activation::kQuickGelu: return x * at::sigmoid(1.702 * x);
  }
  throw Error(ErrorCode::kInternal, "an activation that does not exist");
}

void check_token_ids(const at::Tensor& ids, int64_t max_tokens, int64_t vocab_size) {
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.size(0) < 1 || ids.size(1) < 1 ||
      ids.size(1) > max_tokens) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("token ids of type {} and shape {}; expected int64 [batch, 1 to {}]",
                            c10::toString(ids.scalar_type()), c10::str(ids.sizes()), max_tokens));
  }
  const int64_t smallest = ids.min().item<int64_t>();
  const int64_t largest = ids.max().item<int64_t>();
  if (smallest < 0 || largest >= vocab_size) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("token id {}; the text encoder has 0 to {}",
                                                         smallest < 0 ? smallest : largest, vocab_size - 1));
  }
}

}  // namespace rtlynx::models
