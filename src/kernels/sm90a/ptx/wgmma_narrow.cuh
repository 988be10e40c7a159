#pragma once

#include <cstdint>

#include "kernels/sm90a/ptx/wgmma.cuh"

/// Dense products of a warpgroup with few columns, for T = X L_A: D [64, N] += A B^T over 16 k, operands as in
/// wgmma.cuh.
namespace rtlynx::sm90a::ptx {

#define RTLYNX_D8(i)                                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define RTLYNX_NAMES_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define RTLYNX_NAMES_32 RTLYNX_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"

__device__ __forceinline__ void wgmma_dense(float (&d)[16], uint64_t a, uint64_t b) {
  asm volatile(
      "{ .reg .pred p; setp.eq.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" RTLYNX_NAMES_16 "}, %16, %17, p, 1, 1, 0, 0; }\n"
      : RTLYNX_D8(0), RTLYNX_D8(8)
      : "l"(a), "l"(b));
}

__device__ __forceinline__ void wgmma_dense(float (&d)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{ .reg .pred p; setp.eq.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" RTLYNX_NAMES_32 "}, %32, %33, p, 1, 1, 0, 0; }\n"
      : RTLYNX_D8(0), RTLYNX_D8(8), RTLYNX_D8(16), RTLYNX_D8(24)
      : "l"(a), "l"(b));
}

__device__ __forceinline__ void wgmma_dense(float (&d)[64], uint64_t a, uint64_t b) {
  Wgmma<128>::dense(d, a, b);
}

#undef RTLYNX_D8
#undef RTLYNX_NAMES_16
#undef RTLYNX_NAMES_32

}  // namespace rtlynx::sm90a::ptx
