#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace rtlynx {

/// Element types as safetensors names them.
enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool
};

/// Bytes of one element.
std::size_t size_of(DType dtype);
/// The safetensors name: "F32", "BF16", "F8_E4M3", ...
std::string_view dtype_name(DType dtype);

/// A row-major matrix that someone else owns. `row_stride` counts elements and is at least `cols`.
template <class Pointer>
struct BasicMatrixView {
  Pointer data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;
  DType dtype = DType::kF32;
};

/// Read-only and writable views; both are plain values and own nothing.
using MatrixView = BasicMatrixView<const void*>;
using MutableMatrixView = BasicMatrixView<void*>;

}  // namespace rtlynx
