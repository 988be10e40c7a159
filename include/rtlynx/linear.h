#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "rtlynx/backend.h"
#include "rtlynx/spmm.h"
#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"

namespace rtlynx {

/// The RT-Lynx linear: y = s * (X~ W^T) + (X L_A) L_B + bias, pruned online (sparse24.h defines X~ and s).
///   x [m, k] -> y [m, n], both of the weight's dtype (kF32, or kBF16 with fp32 sums and one final rounding)
/// An object is immutable after create(); run() may be called from several threads at once.
class SparseLinear {
 public:
  struct Parameters {
    MatrixView weight;    ///< W [n, k], kF32 or kBF16
    MatrixView bias{};    ///< [1, n], kF32 or kBF16; data == nullptr: none
    MatrixView lora_a{};  ///< L_A [k, r], kF32 or kBF16; given together with lora_b or not at all
    MatrixView lora_b{};  ///< L_B [r, n]
  };

  /// Packs everything; the views may go away afterwards. A new weight or adapter means a new object.
  /// Errors: kInvalidArgument (names argument, wanted, got), kUnsupported (dtype), kOverflow, kOutOfMemory.
  static Result<SparseLinear> create(const Parameters& parameters, Backend backend = Backend::kCpu);

  SparseLinear();
  ~SparseLinear();
  SparseLinear(SparseLinear&&) noexcept;
  SparseLinear& operator=(SparseLinear&&) noexcept;

  /// Any m >= 0 and any row strides >= the widths. `y` must not overlap `x`. Works in the calling thread's workspace
  /// (release_thread_workspace() frees it). The bits of a token's y depend only on that token, the parameters, the
  /// options and the SIMD target: not on m, on the other tokens or on the number of threads.
  /// Errors: kInvalidArgument, kOutOfMemory; y is then untouched.
  Status run(const MatrixView& x, const MutableMatrixView& y, const EpilogueOptions& options = {}) const;

  int64_t n() const;
  int64_t k() const;
  int64_t rank() const;
  DType dtype() const;
  bool has_bias() const;
  std::size_t packed_bytes() const;

 private:
  struct State;
  explicit SparseLinear(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// What a plan is made for.
struct LinearDesc {
  int64_t n = 0;
  int64_t k = 0;
  DType dtype = DType::kF32;
  int64_t rank = 0;  ///< of the low-rank branch; 0 without one
};

/// The machine as the rules see it; this_machine() fills it in.
struct MachineTraits {
  SimdTarget target = SimdTarget::kPortable;
  bool dense_bf16_on_amx = false;  ///< torch's dense bf16 linear runs on AMX tiles
  bool slow_dense_bf16 = false;    ///< dense bf16 without AMX on a core whose vdpbf16ps is slower than its fp32 FMA
  int threads = 1;
};
MachineTraits this_machine();

enum class Execution { kSparse, kDense };
/// "sparse" or "dense".
constexpr std::string_view execution_name(Execution execution) {
  return execution == Execution::kSparse ? "sparse" : "dense";
}

/// Whether a linear should run sparse, and why. Plain data.
struct LinearPlan {
  Execution execution = Execution::kDense;
  std::string reason;  ///< one sentence with the rule and its measured figure
  LinearDesc desc;
  int64_t m = 0;
  MachineTraits machine;

  /// "sparse m=1024 n=3072 k=3072 f32 avx512 2 threads: <reason>"
  std::string to_string() const;
};

/// Chooses by rules measured with `rtlynx bench linear` (docs/kernels-cpu.md): never sparse where dense was faster. A
/// pure function of its arguments. Dense means: call torch's linear; this library has no dense product of its own.
LinearPlan plan_linear(const LinearDesc& desc, int64_t m, const MachineTraits& machine = this_machine());

}  // namespace rtlynx
