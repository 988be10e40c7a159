#include "linear/cpu_kernels.h"

#include <vector>

#include "rtlynx/sparse24.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

/// The rows of a contiguous tensor [..., cols]; a vector is one row.
template <class View, class Pointer>
View view_of(const at::Tensor& tensor, Pointer data) {
  const int64_t cols = tensor.size(-1);
  return View{data, cols == 0 ? 0 : tensor.numel() / cols, cols, cols, kernel_dtype(tensor)};
}

MatrixView view_of(const at::Tensor& tensor) {
  return tensor.defined() ? view_of<MatrixView>(tensor, tensor.const_data_ptr()) : MatrixView{};
}

MutableMatrixView writable_view_of(const at::Tensor& tensor) {
  return view_of<MutableMatrixView>(tensor, tensor.mutable_data_ptr());
}

at::Tensor contiguous_or_undefined(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.contiguous() : tensor;
}

}  // namespace

bool has_cpu_kernels(const at::Tensor& tensor) {
  return tensor.is_cpu() && (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

DType kernel_dtype(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 ? DType::kBF16 : DType::kF32;
}

SparseLinear pack_sparse_linear(const at::Tensor& weight, const at::Tensor& bias, const LoraFactors& lora) {
  const at::Tensor w = weight.contiguous(), b = contiguous_or_undefined(bias);
  const at::Tensor lora_a = contiguous_or_undefined(lora.lora_a), lora_b = contiguous_or_undefined(lora.lora_b);
  Result<SparseLinear> packed = SparseLinear::create({view_of(w), view_of(b), view_of(lora_a), view_of(lora_b)});
  throw_if_error(packed.status());
  return std::move(packed).value();
}

at::Tensor run_sparse_linear(const SparseLinear& packed, const at::Tensor& x, LinearMode mode) {
  const at::Tensor input = x.contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = packed.n();
  at::Tensor y = at::empty(shape, x.options());
  const EpilogueOptions epilogue = {mode != LinearMode::kSa, mode == LinearMode::kSaNcLora};
  throw_if_error(packed.run(view_of(input), writable_view_of(y), epilogue));
  return y;
}

at::Tensor prune_by_kernels(const at::Tensor& x) {
  const at::Tensor input = x.contiguous();
  at::Tensor pruned = at::empty_like(input);
  throw_if_error(prune(view_of(input), writable_view_of(pruned)));
  return pruned;
}

}  // namespace rtlynx
