#include "bench/kernels/linear_on_cuda.h"
#include "rtlynx/status.h"

namespace rtlynx::bench {

std::vector<CudaBenchRow> run_linear_cuda_bench(const CudaBenchOptions&) {
  throw Error(ErrorCode::kUnsupported,
              "bench linear --device cuda: this build has no CUDA kernels (it was configured with RTLYNX_CUDA=OFF)");
}

}  // namespace rtlynx::bench
