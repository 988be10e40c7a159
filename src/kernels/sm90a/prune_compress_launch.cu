#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/prune_compress_kernel.cuh"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {
namespace {

Status launch(const PruneCompressPlan& plan, const PruneCompressArguments& args, Stream stream) {
  if (Status status = check_device(); !status.ok()) return status;
  prune_compress_kernel<<<static_cast<unsigned>(plan.ctas), 32 * kPruneWarps, 0, stream>>>(args);
  return cuda_status(cudaGetLastError(), "prune_compress: launch");
}

}  // namespace

Status prune_compress(const MatrixView& x, const MutableCompressedView& out, Stream stream) {
  const Result<PruneCompressPlan> plan = plan_prune_compress(x, out);
  if (!plan.ok()) return plan.status();
  const auto k_blocks = static_cast<int>(plan.value().k_blocks);
  return launch(plan.value(),
                {static_cast<const uint16_t*>(x.data), x.row_stride, static_cast<uint8_t*>(out.blocks), out.scale,
                 nullptr, static_cast<int>(out.m), k_blocks, k_blocks},
                stream);
}

Status prune_compress_slice(const MatrixView& x, const CompressedSlice& out, Stream stream) {
  const Result<PruneCompressPlan> plan = plan_prune_compress_slice(x, out);
  if (!plan.ok()) return plan.status();
  const int64_t out_k_blocks = out.matrix.k / kBlockK;
  uint8_t* blocks = static_cast<uint8_t*>(out.matrix.blocks) + block_offset(0, out.k_offset / kBlockK, out_k_blocks);
  float2* squares = reinterpret_cast<float2*>(out.squares) + out.k_offset / kSquaresColumns * out.matrix.m;
  return launch(
      plan.value(),
      {static_cast<const uint16_t*>(x.data), x.row_stride, blocks, nullptr, squares, static_cast<int>(out.matrix.m),
       static_cast<int>(plan.value().k_blocks), static_cast<int>(out_k_blocks)},
      stream);
}

}  // namespace rtlynx::sm90a
