#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/fp8.h"
#include "kernels/sm90a/prune_compress_fp8_config.h"

namespace rtlynx::sm90a {
namespace {

constexpr int kThreads = 256;

/// A CTA per row; the row is read twice, the second time from cache.
__global__ void __launch_bounds__(kThreads)
    quantize_weight_fp8_kernel(const uint16_t* w, int64_t w_stride, uint8_t* values, int64_t values_stride,
                               float* factor, int k) {
  const uint4* row = reinterpret_cast<const uint4*>(w + blockIdx.x * w_stride);
  uint2* out = reinterpret_cast<uint2*>(values + blockIdx.x * values_stride);
  uint32_t largest = 0;  // magnitudes of two bf16
  for (int i = threadIdx.x; i < k / 8; i += kThreads) {
    const uint4 x = __ldg(row + i);
    for (const uint32_t pair : {x.x, x.y, x.z, x.w}) largest = __vmaxu2(largest, pair & 0x7fff7fffu);
  }
  __shared__ uint32_t of_warp[kThreads / 32];
  for (int distance = 1; distance < 32; distance *= 2) {
    largest = __vmaxu2(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
  }
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
  for (int i = 0; i < kThreads / 32; ++i) largest = __vmaxu2(largest, of_warp[i]);
  const uint32_t low = largest & 0xffffu, high = largest >> 16;
  const RowScale scale = row_scale(__uint_as_float((low > high ? low : high) << 16));
  if (threadIdx.x == 0) factor[blockIdx.x] = scale.scale;
  for (int i = threadIdx.x; i < k / 8; i += kThreads) {
    const uint4 x = __ldg(row + i);
    out[i] = make_uint2(quantize_pair(x.x, scale.inverse) | (quantize_pair(x.y, scale.inverse) << 16),
                        quantize_pair(x.z, scale.inverse) | (quantize_pair(x.w, scale.inverse) << 16));
  }
}

}  // namespace

Status quantize_weight_fp8(const MatrixView& w, const MutableMatrixView& values, float* factor, Stream stream) {
  if (Status status = check_quantize_weight_fp8(w, values, factor); !status.ok()) return status;
  if (Status status = check_device(); !status.ok()) return status;
  quantize_weight_fp8_kernel<<<static_cast<unsigned>(w.rows), kThreads, 0, stream>>>(
      static_cast<const uint16_t*>(w.data), w.row_stride, static_cast<uint8_t*>(values.data), values.row_stride, factor,
      static_cast<int>(w.cols));
  return cuda_status(cudaGetLastError(), "quantize_weight_fp8: launch");
}

}  // namespace rtlynx::sm90a
