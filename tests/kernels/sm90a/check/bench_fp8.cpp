#include "bench_fp8.h"

#include <cstdio>
#include <exception>

#include "kernels/sm90a/spmm_config.h"
#include "rtlynx/sm90a_fp8.h"

namespace rtlynx::check {

Fp8Bench::Fp8Bench(const LinearShape& shape, const Operands& operands)
    : shape_(shape),
      operands_(operands),
      dense_x_(shape.m, shape.k),
      w_(shape.n, shape.k),
      a_(shape.m, shape.k),
      copy_from_(static_cast<std::size_t>(moved_bytes() / 2)),
      copy_to_(static_cast<std::size_t>(moved_bytes() / 2)) {
  require(sm90a::quantize_weight_fp8(operands.w.view(), w_.mutable_view(), w_.factor(), nullptr));
  require(sm90a::quantize_weight_fp8(operands.x.view(), dense_x_.mutable_view(), dense_x_.factor(), nullptr));
  prune();
}

void Fp8Bench::prune() {
  require(sm90a::prune_compress_fp8(operands_.x.view(), a_.view, true, nullptr));
}

void Fp8Bench::multiply(const sm90a::SpmmOptions& options) {
  require(sm90a::spmm_fp8(read_only(a_.view), w_.weight(), operands_.d.mutable_view(), options, nullptr));
}

void Fp8Bench::add_dense(const Add& add, const std::string& name, Fp8Scales scales) {
  std::unique_ptr<DenseProduct>& product = scales == Fp8Scales::kTensor ? by_tensor_ : by_vector_;
  try {
    product = std::make_unique<DenseProduct>(shape_.m, shape_.n, shape_.k, dense_x_.data(), w_.data(),
                                             operands_.d.data(), DenseFp8{scales, dense_x_.factor(), w_.factor()});
  } catch (const std::exception& error) {
    std::printf("   %s: %s\n", name.c_str(), error.what());
    return;
  }
  add(name, [&product] { product->run(); });
}

void Fp8Bench::add_to(const Add& add) {
  add_dense(add, "cublaslt fp8", Fp8Scales::kTensor);
  add_dense(add, "cublaslt fp8, vectors", Fp8Scales::kVectors);
  add("spmm fp8", [this] { multiply({}); });
  for (int tile = 0; tile < sm90a::kSpmmTileCount; ++tile) {
    const sm90a::SpmmTile& shape = sm90a::kSpmmTiles[tile];
    add("spmm fp8 " + std::to_string(shape.rows()) + "x" + std::to_string(shape.columns),
        [this, tile] { multiply({.tile = tile}); });
  }
  add("spmm fp8 + rank 64 + bias", [this] { multiply(operands_.everything); });
  add("spmm fp8, gelu", [this] { multiply({.activation = sm90a::Activation::kGeluTanh}); });
  add("spmm fp8, gate + residual",
      [this] { multiply({.gate = operands_.gate.view(), .residual = operands_.d.view()}); });
  add("prune_compress fp8", [this] { prune(); });
  add("prune_compress fp8 + spmm fp8", [this] {
    prune();
    multiply({});
  });
  add("linear fp8, rank 64, bias", [this] {
    prune();
    operands_.lora_down.run();
    multiply(operands_.everything);
  });
  add("copy for fp8", [this] {
    require(cudaMemcpyAsync(copy_to_.data(), copy_from_.data(), copy_to_.size(), cudaMemcpyDeviceToDevice, nullptr),
            "copy");
  });
}

}  // namespace rtlynx::check
