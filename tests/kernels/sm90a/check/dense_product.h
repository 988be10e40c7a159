#pragma once

#include <cublasLt.h>

#include <cstdint>

namespace rtlynx::check {

/// D [m, n] = X W^T by cuBLASLt, bf16 with fp32 sums: the dense rival. Of the first eight algorithms that its heuristic
/// names, the constructor keeps the fastest one on the given data.
class DenseProduct {
 public:
  DenseProduct(int64_t m, int64_t n, int64_t k, const void* x, const void* w, void* d);
  ~DenseProduct();
  DenseProduct(const DenseProduct&) = delete;
  DenseProduct& operator=(const DenseProduct&) = delete;

  void run() const;
  int candidates() const { return candidates_; }

 private:
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
