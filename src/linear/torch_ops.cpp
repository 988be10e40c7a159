// Registers torch.ops.rtlynx: prune, linear, prune_compress and spmm. This file makes one loadable library:
// torch.ops.load_library("librtlynx_torch_ops.so"). Inference only: no autograd formula is registered. An operator has
// no memory: on a CPU rtlynx::linear packs the weight in every call, on a GPU it transposes the factors. Use Linear
// where speed counts. prune_compress and spmm exist on Hopper GPUs only; sm90a.h says what they do.

#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>
#include <tuple>

#include "linear/cpu_kernels.h"
#include "linear/cuda_kernels.h"
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
  const bool branch = mode == LinearMode::kSaNcLora;
  if (x.is_cuda() && cuda_refusal(w, branch && lora ? lora->lora_a.size(-1) : 0).empty()) {
    return run_cuda_linear(prepare_cuda_linear(w, b, lora.value_or(LoraFactors{})), x, mode);
  }
  return sparse_linear_by_torch(x, w, b, lora, mode);
}

at::Tensor linear_meta(const at::Tensor& x, const at::Tensor& w, const OptionalTensor&, const OptionalTensor&,
                       const OptionalTensor&, c10::string_view) {
  auto shape = x.sym_sizes().vec();
  shape.back() = w.sym_size(0);
  return at::empty_symint(shape, x.options());
}

std::tuple<at::Tensor, at::Tensor> prune_compress_op(const at::Tensor& x) {
  auto [blocks, scale] = prune_compress_on_cuda(x);
  return {blocks, scale};
}

/// layout.h: 4608 bytes for every 64 rows and 64 k.
std::tuple<at::Tensor, at::Tensor> prune_compress_meta(const at::Tensor& x) {
  const auto k = x.sym_size(-1), m = x.sym_numel() / k;
  return {at::empty_symint({(m + 63) / 64 * (k / 64) * 4608}, x.options().dtype(at::kByte)),
          at::empty_symint({m}, x.options().dtype(at::kFloat))};
}

at::Tensor spmm_op(const at::Tensor& blocks, const at::Tensor& scale, const at::Tensor& w, const OptionalTensor& bias,
                   const OptionalTensor& lora_down, const OptionalTensor& lora_up, bool use_scale) {
  const auto given = [](const OptionalTensor& t) { return t.value_or(at::Tensor()); };
  return spmm_on_cuda({blocks, scale, w, given(bias), given(lora_down), given(lora_up)}, use_scale);
}

at::Tensor spmm_meta(const at::Tensor&, const at::Tensor& scale, const at::Tensor& w, const OptionalTensor&,
                     const OptionalTensor&, const OptionalTensor&, bool) {
  return at::empty_symint({scale.sym_size(0), w.sym_size(0)}, w.options());
}

}  // namespace

TORCH_LIBRARY(rtlynx, library) {
  library.def("prune(Tensor x) -> Tensor");
  library.def("linear(Tensor x, Tensor w, Tensor? bias, Tensor? lora_a, Tensor? lora_b, str mode) -> Tensor");
  library.def("prune_compress(Tensor x) -> (Tensor blocks, Tensor scale)");
  library.def(
      "spmm(Tensor blocks, Tensor scale, Tensor w, Tensor? bias=None, Tensor? lora_down=None, Tensor? lora_up=None, "
      "bool use_scale=True) -> Tensor");
}

TORCH_LIBRARY_IMPL(rtlynx, CPU, library) {
  library.impl("prune", prune_op);
  library.impl("linear", linear_op);
}

TORCH_LIBRARY_IMPL(rtlynx, CUDA, library) {
  library.impl("prune", prune_op);
  library.impl("linear", linear_op);
  library.impl("prune_compress", prune_compress_op);
  library.impl("spmm", spmm_op);
}

TORCH_LIBRARY_IMPL(rtlynx, Meta, library) {
  library.impl("prune", prune_meta);
  library.impl("linear", linear_meta);
  library.impl("prune_compress", prune_compress_meta);
  library.impl("spmm", spmm_meta);
}

}  // namespace rtlynx
