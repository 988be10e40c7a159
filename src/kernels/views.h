#pragma once

#include <cstdint>
#include <string_view>

#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"

namespace rtlynx {

/// Whether the kernels compute with this type.
inline bool is_float_type(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16;
}

/// rows x cols of F32 or BF16, row_stride >= cols, data unless empty, addresses within 63 bits. `rows` or `cols` < 0
/// accepts any size. Messages name operation and argument: "spmm: y must be 4 x 8 (got 4 x 7)".
Status check_view(std::string_view operation, std::string_view argument, const MatrixView& view, int64_t rows,
                  int64_t cols);

/// kInvalidArgument when both views touch a common byte range.
Status check_apart(std::string_view operation, std::string_view first, const MatrixView& a, std::string_view second,
                   const MatrixView& b);

inline MatrixView read_only(const MutableMatrixView& view) {
  return {view.data, view.rows, view.cols, view.row_stride, view.dtype};
}

/// The address of a row.
const void* row_of(const MatrixView& view, int64_t row);
void* row_of(const MutableMatrixView& view, int64_t row);

/// Copies one row as fp32, which is exact for both types.
void read_row(const MatrixView& view, int64_t row, float* out);

/// Writes one row, rounded to the view's type.
void write_row(const MutableMatrixView& view, int64_t row, const float* values);
/// Writes `count` values that came from `dtype`, bit for bit: even a signalling NaN stays what it was.
void write_exact(DType dtype, const float* values, int64_t count, void* out);

}  // namespace rtlynx
