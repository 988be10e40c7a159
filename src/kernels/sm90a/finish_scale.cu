#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/prune_compress_config.h"
#include "rtlynx/sm90a.h"

// 8 bytes read for each 128 k of a row: 3 MB, 1-2 us, for 4096 x 12288. Lane l of a CTA's warps has row l, so that a
// warp reads 256 consecutive bytes of a part; the warps take the parts in turn.
namespace rtlynx::sm90a {
namespace {

constexpr int kWarps = 8;

__global__ void __launch_bounds__(32 * kWarps)
    finish_scale_kernel(const float2* squares, int parts, int m, float* scale) {
  __shared__ float2 sums[kWarps][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  float all = 0.0f, kept = 0.0f;
  if (row < m) {
#pragma unroll 4
    for (int part = warp; part < parts; part += kWarps) {
      const float2 sum = squares[static_cast<int64_t>(part) * m + row];
      all = __fadd_rn(all, sum.x);
      kept = __fadd_rn(kept, sum.y);
    }
  }
  sums[warp][lane] = make_float2(all, kept);
  __syncthreads();
  if (warp != 0 || row >= m) return;
  for (int other = 1; other < kWarps; ++other) {
    all = __fadd_rn(all, sums[other][lane].x);
    kept = __fadd_rn(kept, sums[other][lane].y);
  }
  scale[row] = scale_of(all, kept);
}

}  // namespace

Status finish_scale(const MutableCompressedView& matrix, const float* squares, Stream stream) {
  if (Status status = check_finish_scale(matrix, squares); !status.ok()) return status;
  if (Status status = check_device(); !status.ok()) return status;
  finish_scale_kernel<<<static_cast<unsigned>((matrix.m + 31) / 32), 32 * kWarps, 0, stream>>>(
      reinterpret_cast<const float2*>(squares), static_cast<int>(square_parts(matrix.k)), static_cast<int>(matrix.m),
      matrix.scale);
  return cuda_status(cudaGetLastError(), "finish_scale: launch");
}

}  // namespace rtlynx::sm90a
