#include "reference.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace rtlynx::check {
namespace {

constexpr int kEdge = 16;

__device__ double widened(uint16_t bits) {
  return static_cast<double>(__uint_as_float(static_cast<uint32_t>(bits) << 16));
}

/// One output a thread, 16 x 16 outputs a block, k in pieces of 16 through shared memory.
__global__ void product_kernel(const uint16_t* x, const uint16_t* w, int m, int n, int k, double* sum,
                               double* magnitude) {
  __shared__ double x_tile[kEdge][kEdge + 1], w_tile[kEdge][kEdge + 1];
  const int column = blockIdx.x * kEdge + threadIdx.x, row = blockIdx.y * kEdge + threadIdx.y;
  const int w_row = blockIdx.x * kEdge + threadIdx.y;
  double total = 0, total_magnitude = 0;
  for (int first = 0; first < k; first += kEdge) {
    const int at = first + threadIdx.x;
    x_tile[threadIdx.y][threadIdx.x] = row < m && at < k ? widened(x[static_cast<int64_t>(row) * k + at]) : 0;
    w_tile[threadIdx.y][threadIdx.x] = w_row < n && at < k ? widened(w[static_cast<int64_t>(w_row) * k + at]) : 0;
    __syncthreads();
    for (int i = 0; i < kEdge; ++i) {
      const double product = x_tile[threadIdx.y][i] * w_tile[threadIdx.x][i];
      total += product;
      total_magnitude += fabs(product);
    }
    __syncthreads();
  }
  if (row < m && column < n) {
    sum[static_cast<int64_t>(row) * n + column] = total;
    magnitude[static_cast<int64_t>(row) * n + column] = total_magnitude;
  }
}

__device__ uint64_t mixed(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
  return value ^ (value >> 31);
}

__global__ void gaussian_kernel(uint16_t* out, int64_t count, uint32_t seed) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint64_t bits = mixed(static_cast<uint64_t>(i + 1) * 0x9e3779b97f4a7c15ull + mixed(seed));
    const float u = (static_cast<float>(bits >> 40) + 0.5f) * 0x1p-24f;
    const float v = static_cast<float>(bits & 0xffffffu) * 0x1p-24f;
    out[i] = __bfloat16_as_ushort(__float2bfloat16(sqrtf(-2.0f * logf(u)) * cospif(2.0f * v)));
  }
}

}  // namespace

void reference_product(const uint16_t* x, const uint16_t* w, int m, int n, int k, double* sum, double* magnitude) {
  const dim3 grid((n + kEdge - 1) / kEdge, (m + kEdge - 1) / kEdge);
  product_kernel<<<grid, dim3(kEdge, kEdge)>>>(x, w, m, n, k, sum, magnitude);
}

void fill_gaussian(uint16_t* out, int64_t count, uint32_t seed) {
  gaussian_kernel<<<1024, 256>>>(out, count, seed);
}

}  // namespace rtlynx::check
