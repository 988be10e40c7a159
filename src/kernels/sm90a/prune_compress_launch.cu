#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/prune_compress_kernel.cuh"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {

Status prune_compress(const MatrixView& x, const MutableCompressedView& out, Stream stream) {
  const Result<PruneCompressPlan> plan = plan_prune_compress(x, out);
  if (!plan.ok()) return plan.status();
  if (Status status = check_device(); !status.ok()) return status;
  const PruneCompressArguments args{static_cast<const uint16_t*>(x.data),
                                    x.row_stride,
                                    static_cast<uint8_t*>(out.blocks),
                                    out.scale,
                                    static_cast<int>(out.m),
                                    static_cast<int>(plan.value().k_blocks)};
  prune_compress_kernel<<<static_cast<unsigned>(plan.value().ctas), 32 * kPruneWarps, 0, stream>>>(args);
  return cuda_status(cudaGetLastError(), "prune_compress: launch");
}

}  // namespace rtlynx::sm90a
