#include "kernels/views.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/checked.h"
#include "kernels/bf16.h"

namespace rtlynx {
namespace {

/// Bytes from the first to behind the last element; nothing on overflow.
std::optional<int64_t> extent_bytes(const MatrixView& view) {
  if (view.rows == 0 || view.cols == 0) return 0;
  const auto before = checked_mul<int64_t>(view.rows - 1, view.row_stride);
  const auto elements = before ? checked_add<int64_t>(*before, view.cols) : std::nullopt;
  return elements ? checked_mul<int64_t>(*elements, static_cast<int64_t>(size_of(view.dtype))) : std::nullopt;
}

}  // namespace

Status check_view(std::string_view operation, std::string_view argument, const MatrixView& view, int64_t rows,
                  int64_t cols) {
  const auto invalid = [&](std::string what) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{}: {} {}", operation, argument, what));
  };
  if (!is_float_type(view.dtype)) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{}: {} must be F32 or BF16 (got {})", operation, argument, dtype_name(view.dtype)));
  }
  if (view.rows < 0 || view.cols < 0)
    return invalid(fmt::format("has a negative size ({} x {})", view.rows, view.cols));
  if ((rows >= 0 && view.rows != rows) || (cols >= 0 && view.cols != cols)) {
    const auto wanted = [](int64_t size) { return size >= 0 ? std::to_string(size) : std::string("any"); };
    return invalid(fmt::format("must be {} x {} (got {} x {})", wanted(rows), wanted(cols), view.rows, view.cols));
  }
  if (view.row_stride < view.cols) {
    return invalid(fmt::format("needs a row_stride of at least {} (got {})", view.cols, view.row_stride));
  }
  if (!extent_bytes(view)) {
    return Status(ErrorCode::kOverflow, fmt::format("{}: {} of {} rows with row_stride {} does not fit into 63 bits",
                                                    operation, argument, view.rows, view.row_stride));
  }
  if (view.data == nullptr && view.rows > 0 && view.cols > 0) return invalid("has no data");
  if (reinterpret_cast<std::uintptr_t>(view.data) % size_of(view.dtype) != 0) {
    return invalid(fmt::format("is not aligned to its {}-byte elements", size_of(view.dtype)));
  }
  return {};
}

Status check_apart(std::string_view operation, std::string_view first, const MatrixView& a, std::string_view second,
                   const MatrixView& b) {
  const auto begin_a = reinterpret_cast<std::uintptr_t>(a.data);
  const auto begin_b = reinterpret_cast<std::uintptr_t>(b.data);
  const auto end_a = begin_a + static_cast<std::uintptr_t>(extent_bytes(a).value_or(0));
  const auto end_b = begin_b + static_cast<std::uintptr_t>(extent_bytes(b).value_or(0));
  if (std::max(begin_a, begin_b) < std::min(end_a, end_b)) {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: {} and {} overlap in memory", operation, first, second)};
  }
  return {};
}

const void* row_of(const MatrixView& view, int64_t row) {
  return static_cast<const std::byte*>(view.data) + row * view.row_stride * static_cast<int64_t>(size_of(view.dtype));
}

void* row_of(const MutableMatrixView& view, int64_t row) {
  return const_cast<void*>(row_of(read_only(view), row));
}

void read_row(const MatrixView& view, int64_t row, float* out) {
  if (view.dtype == DType::kF32) {
    std::copy_n(static_cast<const float*>(row_of(view, row)), view.cols, out);
    return;
  }
  const auto* bits = static_cast<const uint16_t*>(row_of(view, row));
  std::transform(bits, bits + view.cols, out, float_from_bf16);
}

void write_row(const MutableMatrixView& view, int64_t row, const float* values) {
  if (view.dtype == DType::kF32) {
    std::copy_n(values, view.cols, static_cast<float*>(row_of(view, row)));
    return;
  }
  std::transform(values, values + view.cols, static_cast<uint16_t*>(row_of(view, row)), bf16_from_float);
}

void write_exact(DType dtype, const float* values, int64_t count, void* out) {
  if (dtype == DType::kF32) {
    std::memcpy(out, values, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  std::transform(values, values + count, static_cast<uint16_t*>(out),
                 [](float value) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16); });
}

}  // namespace rtlynx
