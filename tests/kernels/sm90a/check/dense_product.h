#pragma once

#include <cublasLt.h>

#include <cstdint>

namespace rtlynx::check {

/// How cuBLASLt scales e4m3 operands: by one factor each, or by one for each row of X and of W.
enum class Fp8Scales { kTensor, kVectors };

/// Operands in e4m3 with their factors.
struct DenseFp8 {
  Fp8Scales scales = Fp8Scales::kTensor;
  const float* x_factor = nullptr;
  const float* w_factor = nullptr;
};

/// D [m, n] = X W^T by cuBLASLt, the dense rival: bf16 with fp32 sums, or e4m3 with `fp8` and what cuBLASLt calls fast
/// accumulation, its usual choice for inference. Of the first eight algorithms that its heuristic names, the
/// constructor keeps the fastest one on the given data; it throws if there is none.
class DenseProduct {
 public:
  DenseProduct(int64_t m, int64_t n, int64_t k, const void* x, const void* w, void* d, const DenseFp8& fp8 = {});
  ~DenseProduct();
  DenseProduct(const DenseProduct&) = delete;
  DenseProduct& operator=(const DenseProduct&) = delete;

  void run() const;
  int candidates() const { return candidates_; }

 private:
  void scale_by(const DenseFp8& fp8);
  void run_with(const cublasLtMatmulAlgo_t& algorithm) const;

  const void* x_;
  const void* w_;
  void* d_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t w_layout_ = nullptr, x_layout_ = nullptr, d_layout_ = nullptr;
  void* workspace_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
  int candidates_ = 0;
};

}  // namespace rtlynx::check
