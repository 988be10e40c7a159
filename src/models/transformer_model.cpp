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

}  // namespace rtlynx::models
