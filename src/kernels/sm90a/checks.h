#pragma once

#include <cstdint>
#include <string>

#include "kernels/views.h"
#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"

/// Argument checks of the Hopper operations; pure arithmetic on views, nothing is read.
namespace rtlynx::sm90a {

/// Largest m, n, k: coordinates of the copy engine are 32-bit and signed.
inline constexpr int64_t kMaxExtent = int64_t{1} << 30;

/// kInvalidArgument unless `value` is in 1..kMaxExtent. Messages begin with `what`: "spmm: m must be ..."
Status check_extent(const std::string& what, int64_t value);

/// kInvalidArgument unless the view is rows x cols of `dtype`, not null, with data and rows 16-byte aligned.
Status check_matrix(const std::string& what, const MatrixView& view, int64_t rows, int64_t cols,
                    DType dtype = DType::kBF16);

/// kInvalidArgument unless the pointer is not null and a multiple of `alignment`.
Status check_pointer(const std::string& what, const void* pointer, unsigned alignment);

/// kUnsupported unless extent % multiple == 0.
Status check_multiple(const std::string& what, int64_t extent, int64_t multiple);

/// kInvalidArgument when the byte ranges of a written and a read operand touch.
Status check_apart(const std::string& what, const void* written, int64_t written_bytes, const void* read,
                   int64_t read_bytes);

/// Bytes from the first to the last element of a view.
int64_t span_bytes(const MatrixView& view);

}  // namespace rtlynx::sm90a
