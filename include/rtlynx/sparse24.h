#pragma once

#include <cstdint>

#include "rtlynx/backend.h"
#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"

namespace rtlynx {

/// 2:4 sparsity of activations. A *group* is 4 consecutive k of one token. `prune` keeps the 2 elements with the
/// largest |x|; of equal ones the lower index. -0 equals +0, and every NaN counts as larger than every number, all NaNs
/// being equal. A tail group of k % 4 elements is selected as if it were filled up with zeros at higher indices: it
/// keeps its min(2, k % 4) largest. Selection is bit-exact in every back end; kept values are never changed.
///
/// The norm compensation of a token is s = sqrt(sum x^2 / (sum x~^2 + 1e-8)), x~ the pruned x, in fp32. Both sums use
/// 16 partial sums, p[k % 16] = fma(x[k], x[k], p[k % 16]) for rising k, which are then added in halves
/// (p[j] + p[j + 8], then + 4, + 2, + 1). Every back end and target follows this order, so that s is the same bit for
/// bit. A zero row has s = 0. Inf and NaN go through the formula as they are.

/// Activations [m, k] after prune and compress. Plain data, owned.
struct Compressed24 {
  int64_t m = 0;
  int64_t k = 0;
  int64_t rank = 0;           ///< columns of lora_down; 0 without one
  DType dtype = DType::kF32;  ///< of `values`: kF32 or kBF16
  Buffer values;              ///< [m, 2 * groups], in rising k within a group; slots beyond k hold 0
  Buffer metadata;   ///< [m, groups] bytes: bits 0-1 the first kept index, bits 2-3 the second (first < second)
  Buffer scale;      ///< [m] fp32, the s of each token
  Buffer lora_down;  ///< [m, rank] fp32, X L_A of the *unpruned* X; null when rank == 0

  int64_t groups() const { return (k + 3) / 4; }
  int64_t slots() const { return 2 * groups(); }
};

/// out = the pruned x. Both [m, k], the same dtype (kF32 or kBF16), any row_stride >= k; out may be x itself but must
/// not overlap it otherwise. Errors: kInvalidArgument (names argument, wanted, got), kUnsupported (dtype).
Status prune(const MatrixView& x, const MutableMatrixView& out, Backend backend = Backend::kCpu);

/// Packs x [m, k] (kF32 or kBF16) into values, metadata and scale. With `lora_a` ([k, r], kF32 or kBF16, row_stride
/// free) it also computes lora_down = x lora_a: fp32 fused multiply-adds over rising k (fp64 in the reference).
/// Errors: kInvalidArgument, kUnsupported (dtype), kOutOfMemory.
Result<Compressed24> prune_compress(const MatrixView& x, const MatrixView& lora_a = {},
                                    Backend backend = Backend::kCpu);

/// out [m, k], a's dtype = the dense matrix that `a` stands for: decompress(prune_compress(x)) equals prune(x) bit for
/// bit, except that dropped elements are +0. Errors: kInvalidArgument (shape, dtype, or metadata whose indices do not
/// rise: `a` is not trusted).
Status decompress(const Compressed24& a, const MutableMatrixView& out);

}  // namespace rtlynx
