#include "models/transformer_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "rtlynx/status.h"

namespace rtlynx::models {

void expect_shape(std::string_view name, const at::Tensor& tensor, at::IntArrayRef expected) {
  if (tensor.defined() && tensor.sizes() == expected) return;
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("transformer input {}: got shape [{}], expected [{}]", name,
                  fmt::join(tensor.defined() ? tensor.sizes() : at::IntArrayRef{}, ", "), fmt::join(expected, ", ")));
}

void expect_token_grid(int64_t height, int64_t width, const at::Tensor& hidden_states,
                       const at::Tensor& encoder_hidden_states) {
  if (height >= 1 && width >= 1 && hidden_states.dim() == 3 && encoder_hidden_states.dim() == 3) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("transformer input: got a grid of {}x{} tokens, hidden_states of {} and "
                          "encoder_hidden_states of {} dimensions, expected a positive grid and 3 dimensions each",
                          height, width, hidden_states.dim(), encoder_hidden_states.dim()));
}

}  // namespace rtlynx::models
