#pragma once

#include <cuda.h>

#include <cstdint>

#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"

namespace rtlynx::sm90a {

/// How the copy engine permutes the 16-byte chunks of a box in shared memory.
enum class Swizzle { k64Bytes, k128Bytes };

/// Sets `map` to describe a row-major matrix of bf16 or single bytes and the box that one copy moves: box_columns x
/// box_rows. The view must have passed check_matrix. kUnsupported without a driver that knows tensor maps, kInternal if
/// it refuses this one.
Status make_tensor_map(const MatrixView& view, uint32_t box_columns, uint32_t box_rows, Swizzle swizzle,
                       CUtensorMap& map);

}  // namespace rtlynx::sm90a
