#include "linear/cuda_kernels.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "rtlynx/sm90a_linear.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

constexpr int64_t kRankMultiple = 8;
constexpr int64_t kRowMultiple = 8;  // of bf16: 16 bytes
constexpr uintptr_t kAlignment = 16;

std::string describe(const at::Tensor& t) {
  return fmt::format("[{}] {} on {}", fmt::join(t.sizes(), ", "), at::toString(t.scalar_type()), t.device().str());
}

sm90a::Stream current_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}

int64_t padded_rank(int64_t rank) {
  return (rank + kRankMultiple - 1) / kRankMultiple * kRankMultiple;
}

/// t [..., cols] as a matrix whose rows the kernels can read: a view where possible, else a copy.
at::Tensor aligned_rows(const at::Tensor& t) {
  const int64_t cols = t.size(-1);
  const at::Tensor rows = t.reshape({cols == 0 ? 0 : t.numel() / cols, cols});
  const bool is_dense = rows.stride(1) == 1 || cols == 1;
  const bool apart = rows.size(0) <= 1 || (rows.stride(0) >= cols && rows.stride(0) % kRowMultiple == 0);
  const bool aligned = reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % kAlignment == 0;
  return is_dense && apart && aligned ? rows : rows.clone(at::MemoryFormat::Contiguous);
}

at::Tensor aligned_rows_or_undefined(const at::Tensor& t) {
  return t.defined() ? aligned_rows(t) : t;
}

/// The view of what aligned_rows() gave; an undefined tensor is a view of nothing. A single row's stride may be
/// anything.
MatrixView view_of(const at::Tensor& t) {
  if (!t.defined()) return {};
  return {t.const_data_ptr(), t.size(0), t.size(1), t.size(0) <= 1 ? t.size(1) : t.stride(0), DType::kBF16};
}

MutableMatrixView writable_view_of(const at::Tensor& t) {
  return {t.mutable_data_ptr(), t.size(0), t.size(1), t.size(1), DType::kBF16};
}

/// The library only sees addresses: device and type are checked here.
void check_operand(const char* operation, const char* name, const at::Tensor& t, at::ScalarType type,
                   const at::Device& device) {
  if (!t.defined() || (t.scalar_type() == type && t.device() == device && t.dim() > 0)) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: {} is {}, expected {} on {}", operation, name, describe(t),
                                                       at::toString(type), device.str()));
}

at::Tensor bytes_on(const at::Device& device, int64_t count) {
  return at::empty({count}, at::TensorOptions().dtype(at::kByte).device(device));
}

int64_t value_or_throw(const Result<int64_t>& result) {
  throw_if_error(result.status());
  return result.value();
}

}  // namespace

std::string cuda_refusal(const at::Tensor& weight, int64_t rank) {
  if (!weight.is_cuda()) return fmt::format("the Hopper kernels do not run on {}", weight.device().str());
  if (weight.scalar_type() != at::kBFloat16) {
    return fmt::format("the Hopper kernels compute in bf16, not {}", at::toString(weight.scalar_type()));
  }
  const Status sizes = sm90a::check_linear_sizes(weight.size(0), weight.size(1), padded_rank(rank));
  if (!sizes.ok()) return sizes.message();
  const c10::cuda::CUDAGuard guard(weight.device());
  return sm90a::check_device().message();
}

LinearDecision plan_on_cuda(const at::Tensor& weight, int64_t rank, int64_t m) {
  std::string refusal = cuda_refusal(weight, rank);
  if (!refusal.empty()) return {false, std::move(refusal)};
  const c10::cuda::CUDAGuard guard(weight.device());
  const Result<sm90a::DeviceTraits> device = sm90a::device_traits();
  if (!device.ok()) return {false, device.status().message()};
  const sm90a::LinearPlan plan =
      sm90a::plan_linear(m, weight.size(0), weight.size(1), padded_rank(rank), device.value());
  return {plan.execution == Execution::kSparse, plan.reason};
}

CudaLinear prepare_cuda_linear(const at::Tensor& weight, const at::Tensor& bias, const LoraFactors& lora) {
  const at::Device device = weight.device();
  check_operand("linear", "w", weight, at::kBFloat16, device);
  check_operand("linear", "bias", bias, at::kBFloat16, device);
  check_operand("linear", "lora_a", lora.lora_a, at::kBFloat16, device);
  check_operand("linear", "lora_b", lora.lora_b, at::kBFloat16, device);
  const c10::cuda::CUDAGuard guard(device);
  CudaLinear linear;
  linear.weight = aligned_rows(weight);
  linear.bias = aligned_rows_or_undefined(bias);
  const int64_t rank = lora.lora_a.defined() ? padded_rank(lora.lora_a.size(1)) : 0;
  if (rank == 0 || !sm90a::check_linear_sizes(weight.size(0), weight.size(1), rank).ok()) return linear;
  const int64_t missing = rank - lora.lora_a.size(1);
  linear.lora_down = at::constant_pad_nd(lora.lora_a.t(), {0, 0, 0, missing}).contiguous();
  linear.lora_up = at::constant_pad_nd(lora.lora_b.t(), {0, missing}).contiguous();
  return linear;
}

at::Tensor run_cuda_linear(const CudaLinear& linear, const at::Tensor& x, LinearMode mode) {
  const at::Device device = linear.weight.device();
  check_operand("linear", "x", x, at::kBFloat16, device);
  const c10::cuda::CUDAGuard guard(device);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = linear.weight.size(0);
  if (x.numel() == 0) return at::empty(shape, x.options());
  const at::Tensor rows = aligned_rows(x);
  const at::Tensor y = at::empty({rows.size(0), linear.weight.size(0)}, x.options());
  sm90a::SpmmOptions options;
  options.use_scale = mode != LinearMode::kSa;
  options.bias = view_of(linear.bias);
  const bool branch = mode == LinearMode::kSaNcLora;
  if (branch) {
    if (!linear.lora_down.defined()) {
      throw Error(ErrorCode::kInvalidArgument, "linear: mode sa-nc-lora needs an adapter's factors, none are set");
    }
    options.lora_up = view_of(linear.lora_up);
  }
  // The allocator gives memory back in the stream's order: it may be used again while the kernels still run.
  const int64_t rank = branch ? linear.lora_up.size(1) : 0;
  const at::Tensor workspace =
      bytes_on(device, value_or_throw(sm90a::linear_workspace_bytes(rows.size(0), rows.size(1), rank)));
  throw_if_error(sm90a::linear(view_of(rows), view_of(linear.weight), writable_view_of(y), options,
                               workspace.mutable_data_ptr(), workspace.numel(), current_stream(),
                               branch ? view_of(linear.lora_down) : MatrixView{}));
  return y.view(shape);
}

std::pair<at::Tensor, at::Tensor> prune_compress_on_cuda(const at::Tensor& x) {
  check_operand("prune_compress", "x", x, at::kBFloat16, x.device());
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor rows = aligned_rows(x);
  const at::Tensor blocks = bytes_on(x.device(), value_or_throw(sm90a::compressed_bytes(rows.size(0), rows.size(1))));
  const at::Tensor scale = at::empty({rows.size(0)}, x.options().dtype(at::kFloat));
  throw_if_error(sm90a::prune_compress(
      view_of(rows), {blocks.mutable_data_ptr(), scale.mutable_data_ptr<float>(), rows.size(0), rows.size(1)},
      current_stream()));
  return {blocks, scale};
}

at::Tensor spmm_on_cuda(const SpmmOperands& operands, bool use_scale) {
  const at::Device device = operands.blocks.device();
  check_operand("spmm", "blocks", operands.blocks, at::kByte, device);
  check_operand("spmm", "scale", operands.scale, at::kFloat, device);
  check_operand("spmm", "w", operands.weight, at::kBFloat16, device);
  check_operand("spmm", "bias", operands.bias, at::kBFloat16, device);
  check_operand("spmm", "lora_down", operands.lora_down, at::kBFloat16, device);
  check_operand("spmm", "lora_up", operands.lora_up, at::kBFloat16, device);
  const c10::cuda::CUDAGuard guard(device);
  const at::Tensor blocks = operands.blocks.contiguous(), scale = operands.scale.contiguous();
  const at::Tensor weight = aligned_rows(operands.weight), bias = aligned_rows_or_undefined(operands.bias);
  const at::Tensor down = aligned_rows_or_undefined(operands.lora_down);
  const at::Tensor up = aligned_rows_or_undefined(operands.lora_up);
  const int64_t m = scale.numel(), k = weight.size(1);
  const int64_t bytes = value_or_throw(sm90a::compressed_bytes(m, k));
  if (blocks.numel() != bytes) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("spmm: blocks must have {} bytes for m={} and k={} (got {})", bytes, m, k, blocks.numel()));
  }
  const at::Tensor d = at::empty({m, weight.size(0)}, weight.options());
  sm90a::SpmmOptions options;
  options.use_scale = use_scale;
  options.bias = view_of(bias);
  options.lora_down = view_of(down);
  options.lora_up = view_of(up);
  throw_if_error(sm90a::spmm({blocks.const_data_ptr(), scale.const_data_ptr<float>(), m, k}, view_of(weight),
                             writable_view_of(d), options, current_stream()));
  return d;
}

}  // namespace rtlynx
