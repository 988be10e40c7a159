#pragma once

#include "kernels/lora_down.h"
#include "kernels/packed_weight.h"
#include "rtlynx/sparse24.h"
#include "rtlynx/spmm.h"

/// The reference's products over whole matrices, one thread. Arguments are checked already; kOutOfMemory.
namespace rtlynx::reference {

Status run_compressed(const PackedWeight::Layout& weight, const Compressed24& a, const MutableMatrixView& y,
                      const EpilogueOptions& options);

Status run_dense(const PackedWeight::Layout& weight, const PackedLoraA& lora_a, const MatrixView& x,
                 const MutableMatrixView& y, const EpilogueOptions& options);

}  // namespace rtlynx::reference
