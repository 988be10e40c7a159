#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "dense_product.h"
#include "device_fp8.h"
#include "device_memory.h"
#include "kernels/shapes.h"

namespace rtlynx::check {

/// The contestants in FP8 on one shape: ours, dense cuBLASLt, and the copy that pruning is measured against.
class Fp8Bench {
 public:
  struct Operands {
    const DeviceMatrix& x;
    const DeviceMatrix& w;
    DeviceMatrix& d;
    const DenseProduct& lora_down;  ///< T = X L_A
    const DeviceMatrix& gate;       ///< [1, n]
    sm90a::SpmmOptions everything;  ///< low-rank branch and bias
  };
  Fp8Bench(const LinearShape& shape, const Operands& operands);

  using Add = std::function<void(const std::string& name, std::function<void()> call)>;
  void add_to(const Add& add);

  /// What prune_compress_fp8 reads and writes.
  double moved_bytes() const { return 2.625 * static_cast<double>(shape_.m) * static_cast<double>(shape_.k); }

 private:
  void prune();
  void multiply(const sm90a::SpmmOptions& options);
  /// Without a contestant where cuBLASLt has no algorithm for it.
  void add_dense(const Add& add, const std::string& name, Fp8Scales scales);

  LinearShape shape_;
  Operands operands_;
  DeviceFp8 dense_x_, w_;
  DeviceCompressedFp8 a_;
  std::unique_ptr<DenseProduct> by_tensor_, by_vector_;
  DeviceBytes copy_from_, copy_to_;
};

}  // namespace rtlynx::check
