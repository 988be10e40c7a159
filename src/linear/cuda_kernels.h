#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "linear/linear.h"
#include "linear/sparse_ops.h"

/// The Hopper kernels on torch's tensors and torch's current stream. In a build without them (RTLYNX_CUDA=OFF)
/// cuda_refusal says so and the rest throws Error(kUnsupported).
namespace rtlynx {

/// Why the Hopper kernels cannot run a linear with this weight [n, k] and a branch of `rank` factors (0: none), in one
/// sentence; empty where they can: bf16 on a device of compute capability 9.0, k % 64 == 0, n % 8 == 0, rank <= 128.
std::string cuda_refusal(const at::Tensor& weight, int64_t rank);

/// The plan's verdict for m tokens.
LinearDecision plan_on_cuda(const at::Tensor& weight, int64_t rank, int64_t m);

/// One linear's parameters as the kernels read them. Weight and bias are the given tensors, copied only where rows are
/// not 16-byte aligned.
struct CudaLinear {
  at::Tensor weight;     ///< [n, k]
  at::Tensor bias;       ///< [1, n] or undefined
  at::Tensor lora_down;  ///< L_A transposed, [r, k], or undefined
  at::Tensor lora_up;    ///< L_B transposed, [n, r], or undefined; r is padded with zeros to a multiple of 8
};

/// Prepares bf16 tensors of one device. Factors of more than 128 are left out: cuda_refusal() keeps them from being
/// needed.
CudaLinear prepare_cuda_linear(const at::Tensor& weight, const at::Tensor& bias, const LoraFactors& lora);

/// y [..., n] of x [..., k] in a sparse mode, queued on the current stream; X L_A comes with the pruning, rounded to
/// bf16. `linear` must hold factors for kSaNcLora. x is copied where its rows are not 16-byte aligned. Throws Error.
at::Tensor run_cuda_linear(const CudaLinear& linear, const at::Tensor& x, LinearMode mode);

/// {blocks, scale} of x [..., k] by sm90a::prune_compress: bytes, and fp32 [m]. Throws Error.
std::pair<at::Tensor, at::Tensor> prune_compress_on_cuda(const at::Tensor& x);

/// d [m, n] by sm90a::spmm; undefined tensors leave their part out. w [n, k], bias [n], lora_down [m, r], lora_up [n,
/// r]. Throws Error(kInvalidArgument) for what does not fit together.
struct SpmmOperands {
  at::Tensor blocks, scale, weight, bias, lora_down, lora_up;
};
at::Tensor spmm_on_cuda(const SpmmOperands& operands, bool use_scale);

}  // namespace rtlynx
