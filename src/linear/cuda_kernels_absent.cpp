#include "linear/cuda_kernels.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

constexpr const char* kAbsent = "this build has no CUDA kernels (it was configured with RTLYNX_CUDA=OFF)";

[[noreturn]] void refuse() {
  throw Error(ErrorCode::kUnsupported, kAbsent);
}

}  // namespace

std::string cuda_refusal(const at::Tensor&, int64_t) {
  return kAbsent;
}

LinearDecision plan_on_cuda(const at::Tensor&, int64_t, int64_t) {
  return {false, kAbsent};
}

CudaLinear prepare_cuda_linear(const at::Tensor&, const at::Tensor&, const LoraFactors&) {
  refuse();
}

at::Tensor run_cuda_linear(const CudaLinear&, const at::Tensor&, LinearMode) {
  refuse();
}

std::pair<at::Tensor, at::Tensor> prune_compress_on_cuda(const at::Tensor&) {
  refuse();
}

at::Tensor spmm_on_cuda(const SpmmOperands&, bool) {
  refuse();
}

}  // namespace rtlynx
