#include "rtlynx/linear.h"

#include <fmt/format.h>

#include "kernels/cpu/multiply.h"
#include "kernels/lora_down.h"
#include "kernels/packed_weight.h"
#include "kernels/reference/run.h"
#include "kernels/views.h"

namespace rtlynx {

struct SparseLinear::State {
  PackedWeight weight;
  PackedLoraA lora_a;
};

SparseLinear::SparseLinear() : state_(std::make_unique<State>()) {}
SparseLinear::SparseLinear(std::unique_ptr<State> state) : state_(std::move(state)) {}
SparseLinear::~SparseLinear() = default;
SparseLinear::SparseLinear(SparseLinear&&) noexcept = default;
SparseLinear& SparseLinear::operator=(SparseLinear&&) noexcept = default;

int64_t SparseLinear::n() const {
  return state_->weight.n();
}
int64_t SparseLinear::k() const {
  return state_->weight.k();
}
int64_t SparseLinear::rank() const {
  return state_->weight.rank();
}
DType SparseLinear::dtype() const {
  return state_->weight.dtype();
}
bool SparseLinear::has_bias() const {
  return state_->weight.has_bias();
}
std::size_t SparseLinear::packed_bytes() const {
  return state_->weight.packed_bytes();
}

Result<SparseLinear> SparseLinear::create(const Parameters& parameters, Backend backend) {
  auto weight = PackedWeight::pack({parameters.weight, parameters.bias, parameters.lora_b}, backend);
  if (!weight.ok()) return weight.status();
  auto state = std::make_unique<State>();
  state->weight = std::move(weight).value();
  const bool is_padded = state->weight.layout().table != nullptr;
  auto lora_a = pack_lora_a("linear", parameters.lora_a, state->weight.k(), is_padded);
  if (!lora_a.ok()) return lora_a.status();
  state->lora_a = std::move(lora_a).value();
  if (state->lora_a.rank != state->weight.rank()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("linear: lora_a and lora_b must have one rank (got {} and {})", state->lora_a.rank,
                              state->weight.rank()));
  }
  return SparseLinear(std::move(state));
}

Status SparseLinear::run(const MatrixView& x, const MutableMatrixView& y, const EpilogueOptions& options) const {
  if (Status status = check_view("linear", "x", x, -1, k()); !status.ok()) return status;
  if (Status status = check_view("linear", "y", read_only(y), x.rows, n()); !status.ok()) return status;
  for (const auto& [name, got] : {std::pair("x", x.dtype), std::pair("y", y.dtype)}) {
    if (got == dtype()) continue;
    return {ErrorCode::kInvalidArgument,
            fmt::format("linear: {} must be {} like the weight (got {})", name, dtype_name(dtype()), dtype_name(got))};
  }
  if (Status status = check_apart("linear", "x", x, "y", read_only(y)); !status.ok()) return status;
  const auto& layout = state_->weight.layout();
  if (layout.table == nullptr) return reference::run_dense(layout, state_->lora_a, x, y, options);
  return cpu::multiply({&layout, x, &state_->lora_a, nullptr, y, options});
}

}  // namespace rtlynx
