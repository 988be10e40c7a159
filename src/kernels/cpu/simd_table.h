#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "rtlynx/backend.h"
#include "rtlynx/tensor_view.h"

namespace rtlynx::cpu {

/// Activations are pruned in strips of 16 k, so every row is padded with zeros to a multiple of it. Padding can be
/// selected in the tail, but never changes a sum: the rows of W beside it are zero.
inline constexpr int64_t kStripK = 16;

/// Where one token's kept elements go. Packed activations lie as [k block][token][slot]: `values` and, per slot, the
/// byte offset of the row of the weight panel that the slot multiplies.
///   fp32 products: a slot is one kept x (fp32); two slots a group; the offset names row k of the panel's block
///   bf16 pairs:    a slot is both kept x of a group (two bf16 in 4 bytes); the offset names one of the group's six
///                  rows of weight pairs (w_i, w_j)
struct RowSlots {
  int64_t k_padded = 0;
  int64_t block_k = 0;  ///< a multiple of kStripK
  int64_t row = 0;      ///< of `rows` tokens that share the buffers
  int64_t rows = 0;
  std::byte* values = nullptr;  ///< 4 bytes a slot
  uint16_t* offsets = nullptr;
};

/// What the last k block of a panel does with its sums: y[t] = fma(scale[t], sums[t], addend[t]), rounded to y's type.
/// It happens in registers, so that the stores to y, which miss the caches, hide behind the products.
struct PanelOutput {
  const float* scale = nullptr;   ///< [tokens], or nullptr for 1
  const float* addend = nullptr;  ///< [tokens][addend_stride]: the bias (stride 0) or what LowRank made of it
  int64_t addend_stride = 0;
  std::byte* y = nullptr;
  int64_t y_stride_bytes = 0;
  int64_t columns = 0;  ///< of y in this panel
  DType dtype = DType::kF32;
};

/// sums[t] (+)= sum over the slots of token t of value * weights[offset], for one panel and one k block.
struct PanelBlock {
  const std::byte* weights = nullptr;
  const std::byte* values = nullptr;  ///< [tokens][slots]
  const uint16_t* offsets = nullptr;  ///< [tokens][slots]
  int64_t slots = 0;                  ///< a multiple of 4
  int64_t tokens = 0;
  float* sums = nullptr;              ///< [tokens][panel_width]
  int64_t vectors = 0;                ///< vectors of the panel that hold columns; the rest of it is left alone
  bool is_first = false;              ///< start from zero instead of from `sums`
  const PanelOutput* last = nullptr;  ///< write y instead of `sums`; nullptr: there are more k blocks
  const std::byte* next = nullptr;    ///< the next block, fetched into L2 on the way; nullptr: none
  int64_t next_bytes = 0;
};

/// out[t] = bias + lora_down[t] L_B, fused over the rank.
struct LowRank {
  const float* lora_down = nullptr;  ///< [tokens][lora_stride]
  int64_t lora_stride = 0;
  int64_t tokens = 0;
  int64_t rank = 0;
  const float* lora_b = nullptr;  ///< [rank][panel_width]
  const float* bias = nullptr;    ///< [panel_width]
  float* out = nullptr;           ///< [tokens][panel_width]
};

/// out[i][j] (+)= sum over k_begin <= k < k_end of x[i][k] * lora_a[k][j], fused over rising k; starts from zero when
/// k_begin is 0, else from `out`.
struct LoraDown {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t k_begin = 0;
  int64_t k_end = 0;
  const float* lora_a = nullptr;  ///< [k][columns]
  int64_t columns = 0;            ///< the rank rounded up to kStripK
  float* out = nullptr;           ///< [rows][columns]
};

/// The operations of one SIMD target.
struct SimdTable {
  SimdTarget target = SimdTarget::kPortable;
  int64_t lanes = 0;             ///< fp32 in a vector
  int64_t panel_width = 0;       ///< columns of a weight panel
  int64_t bytes_per_weight = 4;  ///< in a panel
  bool has_pairs = false;        ///< bf16 pairs instead of fp32 products

  void (*widen)(const uint16_t* bf16, int64_t count, float* out) = nullptr;
  /// The pruned row; `x` and `out` hold k_padded floats and may be the same.
  void (*prune_row)(const float* x, int64_t k_padded, float* out) = nullptr;
  /// Compressed24's values (as fp32) and metadata for k_padded elements; returns the token's scale.
  float (*compress_row)(const float* x, int64_t k_padded, float* values, uint8_t* metadata) = nullptr;
  /// Packs one token for panel_block; returns its scale.
  float (*pack_row)(const float* x, const RowSlots& to) = nullptr;
  void (*lora_down)(const LoraDown& args) = nullptr;
  void (*panel_block)(const PanelBlock& args) = nullptr;
  /// y of `count` tokens from `token` on, from their sums in memory.
  void (*write_tokens)(const PanelOutput& to, int64_t token, int64_t count, const float* sums) = nullptr;
  void (*low_rank)(const LowRank& args) = nullptr;

  /// The largest k block whose panel leaves room in the L1 data cache for what streams past it.
  int64_t block_k() const;
};

/// The table for weights of this type; nullptr for kPortable. `target` must be a supported one.
const SimdTable* simd_table(SimdTarget target, DType dtype);

/// The tables of the compiled targets that run here, in rising order: AVX2, AVX-512 (simd_kernels.cpp).
const std::vector<const SimdTable*>& highway_tables();
/// AVX-512 with everything for bf16 pairs but panel_block (simd_kernels.cpp), and with it (pairs_avx512.cpp); nullptr
/// where the compiler or the machine lacks the instructions.
const SimdTable* pair_table_without_product();
const SimdTable* pair_table();

}  // namespace rtlynx::cpu
