#include "rtlynx/spmm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/multiply.h"
#include "kernels/packed_weight.h"
#include "kernels/reference/run.h"
#include "kernels/views.h"

namespace rtlynx {

PackedWeight::PackedWeight() : layout_(std::make_unique<Layout>()) {}
PackedWeight::PackedWeight(std::unique_ptr<Layout> layout) : layout_(std::move(layout)) {}
PackedWeight::~PackedWeight() = default;
PackedWeight::PackedWeight(PackedWeight&&) noexcept = default;
PackedWeight& PackedWeight::operator=(PackedWeight&&) noexcept = default;

int64_t PackedWeight::n() const {
  return layout_->n;
}
int64_t PackedWeight::k() const {
  return layout_->k;
}
int64_t PackedWeight::rank() const {
  return layout_->rank;
}
DType PackedWeight::dtype() const {
  return layout_->dtype;
}
bool PackedWeight::has_bias() const {
  return layout_->has_bias;
}
Backend PackedWeight::backend() const {
  return layout_->backend;
}
SimdTarget PackedWeight::target() const {
  return layout_->table == nullptr ? SimdTarget::kPortable : layout_->table->target;
}
std::size_t PackedWeight::packed_bytes() const {
  return layout_->bytes;
}

namespace {

Status check_operands(const Compressed24& a, const PackedWeight& b, const MutableMatrixView& y,
                      const EpilogueOptions& options) {
  const auto invalid = [](std::string message) { return Status(ErrorCode::kInvalidArgument, std::move(message)); };
  if (a.k != b.k()) return invalid(fmt::format("spmm: a must have k = {} like b (got {})", b.k(), a.k));
  if (a.dtype != b.dtype()) {
    return invalid(fmt::format("spmm: a must be {} like b (got {})", dtype_name(b.dtype()), dtype_name(a.dtype)));
  }
  if (a.m < 0) return invalid(fmt::format("spmm: a has a negative size ({} x {})", a.m, a.k));
  if (options.use_lora && a.rank != b.rank()) {
    return invalid(fmt::format("spmm: a must carry lora_down of rank {} like b (got {})", b.rank(), a.rank));
  }
  if (Status status = check_view("spmm", "y", read_only(y), a.m, b.n()); !status.ok()) return status;
  if (y.dtype != b.dtype()) {
    return invalid(fmt::format("spmm: y must be {} like b (got {})", dtype_name(b.dtype()), dtype_name(y.dtype)));
  }
  const bool has_values = a.m == 0 || a.k == 0 || (a.values != nullptr && a.metadata != nullptr);
  const bool has_lora = a.m == 0 || !options.use_lora || a.rank == 0 || a.lora_down != nullptr;
  if (!has_values || !has_lora || (a.m > 0 && a.scale == nullptr)) return invalid("spmm: a lacks one of its buffers");
  return {};
}

}  // namespace

Status spmm(const Compressed24& a, const PackedWeight& b, const MutableMatrixView& y, const EpilogueOptions& options) {
  if (Status status = check_operands(a, b, y, options); !status.ok()) return status;
  if (b.layout().table == nullptr) return reference::run_compressed(b.layout(), a, y, options);
  return cpu::multiply({&b.layout(), {}, nullptr, &a, y, options});
}

}  // namespace rtlynx
