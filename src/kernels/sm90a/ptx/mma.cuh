#pragma once

#include <cstdint>

/// A warp's product of registers, D [16, 8] += A [16, 16] B [16, 8], bf16 in, fp32 sums.
namespace rtlynx::sm90a::ptx {

/// With g = lane / 4 and q = lane % 4: a[0], a[2] are row g and k = 2 q, 2 q + 8 (each and the next one), a[1], a[3]
/// the same of row g + 8; b[0], b[1] are column g and k = 2 q, 2 q + 8; d[0], d[1] row g and columns 2 q, 2 q + 1,
/// d[2], d[3] the same of row g + 8.
__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                    uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace rtlynx::sm90a::ptx
