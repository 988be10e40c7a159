// Registers torch.ops.rtlynx.prune and torch.ops.rtlynx.linear. This file makes one loadable library:
// torch.ops.load_library("librtlynx_torch_ops.so"). Inference only: no autograd formula is registered. On a CPU
// rtlynx::linear packs the weight in every call: an operator has no memory. Use Linear where speed counts.

#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>

#include "linear/cpu_kernels.h"
#include "linear/sparse_ops.h"

namespace rtlynx {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

at::Tensor prune_op(const at::Tensor& x) {
  return has_cpu_kernels(x) ? prune_by_kernels(x) : prune_24(x);
}

at::Tensor prune_meta(const at::Tensor& x) {
  return at::empty_symint(x.sym_sizes(), x.options());
}

at::Tensor linear_op(const at::Tensor& x, const at::Tensor& w, const OptionalTensor& bias, const OptionalTensor& lora_a,
                     const OptionalTensor& lora_b, c10::string_view mode_name) {
  const LinearMode mode = linear_mode_from_name(mode_name);
  const at::Tensor b = bias.value_or(at::Tensor());
  if (mode == LinearMode::kDense) {
    return at::linear(x, w, b);
  }
  std::optional<LoraFactors> lora;
  if (lora_a && lora_b) {
    lora = LoraFactors{*lora_a, *lora_b};
  }
  if (has_cpu_kernels(x) && (lora || mode != LinearMode::kSaNcLora)) {
    return run_sparse_linear(pack_sparse_linear(w, b, lora.value_or(LoraFactors{})), x, mode);
  }
  return sparse_linear_by_torch(x, w, b, lora, mode);
}

at::Tensor linear_meta(const at::Tensor& x, const at::Tensor& w, const OptionalTensor&, const OptionalTensor&,
                       const OptionalTensor&, c10::string_view) {
  auto shape = x.sym_sizes().vec();
  shape.back() = w.sym_size(0);
  return at::empty_symint(shape, x.options());
}

}  // namespace

TORCH_LIBRARY(rtlynx, library) {
  library.def("prune(Tensor x) -> Tensor");
  library.def("linear(Tensor x, Tensor w, Tensor? bias, Tensor? lora_a, Tensor? lora_b, str mode) -> Tensor");
}

TORCH_LIBRARY_IMPL(rtlynx, CPU, library) {
  library.impl("prune", prune_op);
  library.impl("linear", linear_op);
}

TORCH_LIBRARY_IMPL(rtlynx, CUDA, library) {
  library.impl("prune", prune_op);
  library.impl("linear", linear_op);
}

TORCH_LIBRARY_IMPL(rtlynx, Meta, library) {
  library.impl("prune", prune_meta);
  library.impl("linear", linear_meta);
}

}  // namespace rtlynx
