#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/prune_compress_fp8_kernel.cuh"

namespace rtlynx::sm90a {
namespace {

using Kernel = void (*)(PruneCompressFp8Arguments);

Kernel kernel_of(int warps_per_row) {
  switch (warps_per_row) {
    case 1: return prune_compress_fp8_kernel<1>;
    case 2: return prune_compress_fp8_kernel<2>;
    case 4: return prune_compress_fp8_kernel<4>;
    default: return prune_compress_fp8_kernel<8>;
  }
}

}  // namespace

Status prune_compress_fp8(const MatrixView& x, const MutableCompressedFp8View& out, bool norm_compensation,
                          Stream stream) {
  const Result<PruneCompressFp8Plan> plan = plan_prune_compress_fp8(x, out);
  if (!plan.ok()) return plan.status();
  if (Status status = check_device(); !status.ok()) return status;
  const PruneCompressFp8Arguments args{static_cast<const uint16_t*>(x.data),
                                       x.row_stride,
                                       static_cast<uint8_t*>(out.blocks),
                                       out.factor,
                                       static_cast<int>(out.m),
                                       static_cast<int>(plan.value().k_blocks),
                                       norm_compensation};
  const Kernel kernel = kernel_of(plan.value().warps_per_row);
  kernel<<<static_cast<unsigned>(plan.value().ctas), 32 * kFp8PruneWarps, 0, stream>>>(args);
  return cuda_status(cudaGetLastError(), "prune_compress_fp8: launch");
}

}  // namespace rtlynx::sm90a
