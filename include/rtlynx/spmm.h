#pragma once

#include <cstdint>
#include <memory>

#include "rtlynx/backend.h"
#include "rtlynx/sparse24.h"
#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"

namespace rtlynx {

/// What a linear multiplies with. Views are read while packing and not kept.
struct WeightViews {
  MatrixView weight;    ///< W [n, k] as in the checkpoint, kF32 or kBF16; its dtype is that of activations and output
  MatrixView bias{};    ///< [1, n], kF32 or kBF16; data == nullptr: none
  MatrixView lora_b{};  ///< L_B [r, n], kF32 or kBF16, r in 1..1024; data == nullptr: none
};

/// Weights in the layout of one back end and SIMD target. Immutable; several threads may use one at the same time.
/// Memory: 4 bytes a weight, whatever the dtype (kAvx512Bf16 with bf16: 6 bytes), n rounded up to the panel's width.
class PackedWeight {
 public:
  /// Errors: kInvalidArgument (names argument, wanted, got), kUnsupported (dtype), kOverflow, kOutOfMemory.
  static Result<PackedWeight> pack(const WeightViews& views, Backend backend = Backend::kCpu);

  PackedWeight();
  ~PackedWeight();
  PackedWeight(PackedWeight&&) noexcept;
  PackedWeight& operator=(PackedWeight&&) noexcept;

  int64_t n() const;
  int64_t k() const;
  int64_t rank() const;
  DType dtype() const;
  bool has_bias() const;
  Backend backend() const;
  SimdTarget target() const;
  std::size_t packed_bytes() const;

  /// The layout, for the library's own operations.
  struct Layout;
  const Layout& layout() const { return *layout_; }

 private:
  explicit PackedWeight(std::unique_ptr<Layout> layout);
  std::unique_ptr<Layout> layout_;
};

/// Which parts of y = s * (X~ W^T) + (X L_A) L_B + bias are added. A bias is always added.
struct EpilogueOptions {
  bool use_scale = true;  ///< false: s = 1
  bool use_lora = true;   ///< false leaves the low-rank branch out; without effect when there is none
};

/// y [m, n] = epilogue(a b^T). `y` has b's dtype, any row_stride >= n, and must not overlap anything read. fp32 sums in
/// a fixed order, rounded once to y's dtype: the same bits for every thread count and for every m that a token is part
/// of. Errors: kInvalidArgument (shapes, dtypes, a.rank != b.rank() while use_lora), kOutOfMemory.
Status spmm(const Compressed24& a, const PackedWeight& b, const MutableMatrixView& y,
            const EpilogueOptions& options = {});

}  // namespace rtlynx
