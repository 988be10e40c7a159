#pragma once

#include "kernels/lora_down.h"
#include "kernels/packed_weight.h"
#include "rtlynx/sparse24.h"
#include "rtlynx/spmm.h"

namespace rtlynx::cpu {

/// One checked product. Activations come either dense, as `x` with `lora_a`, or compressed, as `a`.
struct Multiply {
  const PackedWeight::Layout* weight = nullptr;
  MatrixView x;
  const PackedLoraA* lora_a = nullptr;
  const Compressed24* a = nullptr;
  MutableMatrixView y;
  EpilogueOptions options;
};

/// kOutOfMemory, before y is touched.
Status multiply(const Multiply& args);

}  // namespace rtlynx::cpu
