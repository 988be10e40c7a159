#pragma once

#include <cstdint>

#include "kernels/sm90a/layout_fp8.h"
#include "kernels/sm90a/ptx/copy.cuh"
#include "kernels/sm90a/ptx/wgmma.cuh"
#include "kernels/sm90a/spmm_config.h"

/// What the main loop of spmm does differently with each format. Descriptors, stages and copies are the same bytes: a
/// step takes two products of 32 bytes of A's rows and 64 of W's.
namespace rtlynx::sm90a {

template <Format kFormat>
struct Operands;

template <>
struct Operands<Format::kBf16> {
  using Metadata = uint32_t;
  static constexpr int kBlockK = sm90a::kBlockK;
  static constexpr int kBlockBytes = sm90a::kBlockBytes;

  static __device__ __forceinline__ int metadata_of_lane(int lane) { return kValueBytes + 4 * lane; }

  static __device__ __forceinline__ Metadata load(const uint8_t* word) { return ptx::load_streamed(word); }

  template <typename Wgmma, int kCount>
  static __device__ __forceinline__ void multiply(float (&sums)[kCount], uint64_t a, uint64_t b, Metadata metadata,
                                                  int accumulate) {
    Wgmma::template sparse<0>(sums, a, b, metadata, accumulate);
    Wgmma::template sparse<1>(sums, a + 32 / 16, b + 64 / 16, metadata, 1);
  }
};

template <>
struct Operands<Format::kFp8> {
  using Metadata = uint2;
  static constexpr int kBlockK = kFp8BlockK;
  static constexpr int kBlockBytes = kFp8BlockBytes;

  static __device__ __forceinline__ int metadata_of_lane(int lane) { return fp8_metadata_of_lane(lane); }

  static __device__ __forceinline__ Metadata load(const uint8_t* words) { return ptx::load_streamed_pair(words); }

  template <typename Wgmma, int kCount>
  static __device__ __forceinline__ void multiply(float (&sums)[kCount], uint64_t a, uint64_t b, Metadata metadata,
                                                  int accumulate) {
    Wgmma::sparse_e4m3(sums, a, b, metadata.x, accumulate);
    Wgmma::sparse_e4m3(sums, a + 32 / 16, b + 64 / 16, metadata.y, 1);
  }
};

/// sums *= the factor of their column, from shared memory; what lies beyond n is not stored and may be anything.
template <int kCount>
__device__ __forceinline__ void scale_columns(float (&sums)[kCount], uint32_t factors) {
  factors += threadIdx.x % 4 * 8;
  RTLYNX_UNROLL
  for (int i = 0; i < kCount; i += 4) {
    const float2 by = ptx::load_shared_pair(factors + 8 * i);
    sums[i] = __fmul_rn(sums[i], by.x);
    sums[i + 1] = __fmul_rn(sums[i + 1], by.y);
    sums[i + 2] = __fmul_rn(sums[i + 2], by.x);
    sums[i + 3] = __fmul_rn(sums[i + 3], by.y);
  }
}

}  // namespace rtlynx::sm90a
