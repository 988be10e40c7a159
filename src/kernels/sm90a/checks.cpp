#include "kernels/sm90a/checks.h"

#include <string>

namespace rtlynx::sm90a {
namespace {

Status invalid(const std::string& what, const std::string& wanted, const std::string& got) {
  return {ErrorCode::kInvalidArgument, what + " must be " + wanted + " (got " + got + ")"};
}

std::string extents(int64_t rows, int64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

}  // namespace

Status check_extent(const std::string& what, int64_t value) {
  if (value >= 1 && value <= kMaxExtent) return {};
  return invalid(what, "in 1.." + std::to_string(kMaxExtent), std::to_string(value));
}

Status check_pointer(const std::string& what, const void* pointer, unsigned alignment) {
  if (pointer == nullptr) return invalid(what, "device memory", "null");
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (address % alignment == 0) return {};
  return invalid(what, std::to_string(alignment) + "-byte aligned",
                 std::to_string(address % alignment) + " bytes past a multiple");
}

Status check_matrix(const std::string& what, const MatrixView& view, int64_t rows, int64_t cols, DType dtype) {
  if (view.rows != rows || view.cols != cols) return invalid(what, extents(rows, cols), extents(view.rows, view.cols));
  if (view.dtype != dtype) return invalid(what, std::string(dtype_name(dtype)), std::string(dtype_name(view.dtype)));
  if (Status status = check_pointer(what, view.data, 16); !status.ok()) return status;
  if (view.row_stride < cols || view.row_stride > kMaxExtent) {
    return invalid(what + "'s row_stride", "at least " + std::to_string(cols), std::to_string(view.row_stride));
  }
  const auto aligned = static_cast<int64_t>(16 / size_of(dtype));
  if (view.row_stride % aligned != 0 && rows > 1) {
    return invalid(what + "'s row_stride",
                   "a multiple of " + std::to_string(aligned) + ", so that rows are 16-byte aligned",
                   std::to_string(view.row_stride));
  }
  return {};
}

Status check_multiple(const std::string& what, int64_t extent, int64_t multiple) {
  if (extent % multiple == 0) return {};
  return {ErrorCode::kUnsupported, what + " must be a multiple of " + std::to_string(multiple) +
                                       " for the Hopper kernels (got " + std::to_string(extent) + ")"};
}

Status check_apart(const std::string& what, const void* written, int64_t written_bytes, const void* read,
                   int64_t read_bytes) {
  const auto w = reinterpret_cast<uintptr_t>(written), r = reinterpret_cast<uintptr_t>(read);
  const auto w_end = w + static_cast<uintptr_t>(written_bytes), r_end = r + static_cast<uintptr_t>(read_bytes);
  if (w_end <= r || r_end <= w) return {};
  return invalid(what, "apart in memory", "overlapping");
}

int64_t span_bytes(const MatrixView& view) {
  return static_cast<int64_t>(size_of(view.dtype)) * ((view.rows - 1) * view.row_stride + view.cols);
}

}  // namespace rtlynx::sm90a
