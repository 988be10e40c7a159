#pragma once

#include <ATen/ATen.h>

#include "linear/linear.h"
#include "linear/sparse_ops.h"
#include "rtlynx/linear.h"

namespace rtlynx {

/// Whether the torch-free kernel library computes with tensors of this device and dtype (CPU; float, bfloat16).
bool has_cpu_kernels(const at::Tensor& tensor);

/// The library's name of a dtype that has_cpu_kernels accepts.
DType kernel_dtype(const at::Tensor& tensor);

/// Packs weight [n, k], bias [n] (or undefined) and factors (or undefined) for the kernels. Throws Error.
SparseLinear pack_sparse_linear(const at::Tensor& weight, const at::Tensor& bias, const LoraFactors& lora);

/// y [..., n] of x [..., k] in a sparse mode; `packed` must hold factors for kSaNcLora. Throws Error.
at::Tensor run_sparse_linear(const SparseLinear& packed, const at::Tensor& x, LinearMode mode);

/// prune_24 by the library's kernel: the same bits as by torch's operators, except that dropped elements may be
/// either zero. Throws Error.
at::Tensor prune_by_kernels(const at::Tensor& x);

}  // namespace rtlynx
