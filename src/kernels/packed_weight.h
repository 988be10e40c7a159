#pragma once

#include "kernels/cpu/simd_table.h"
#include "rtlynx/spmm.h"

namespace rtlynx {

/// Everything of a weight that the products need.
///   cpu:       `weight` is [panel][k block][row of the block][panel_width] in the table's form, zero-filled to whole
///              panels and strips; `bias` [panel][panel_width], `lora_b` [panel][rank][panel_width], fp32
///   reference: `weight` [n, k], `bias` [n], `lora_b` [rank, n], fp32
struct PackedWeight::Layout {
  Backend backend = Backend::kCpu;
  const cpu::SimdTable* table = nullptr;  ///< nullptr: the reference's form
  DType dtype = DType::kF32;
  int64_t n = 0;
  int64_t k = 0;
  int64_t rank = 0;
  int64_t k_padded = 0;
  int64_t block_k = 0;
  std::size_t bytes = 0;
  Buffer weight;
  bool has_bias = false;
  Buffer bias;    ///< zeros without a bias
  Buffer lora_b;  ///< null: none

  int64_t panels() const { return (n + table->panel_width - 1) / table->panel_width; }
  int64_t panel_bytes() const { return k_padded * table->panel_width * table->bytes_per_weight; }
};

/// A buffer of `count` elements of `element_bytes`, each count >= 0; kOverflow or kOutOfMemory name `what`.
Result<Buffer> make_buffer(std::string_view what, int64_t count, int64_t element_bytes);

template <class T>
T* as(const Buffer& buffer) {
  return reinterpret_cast<T*>(buffer.get());
}

}  // namespace rtlynx
