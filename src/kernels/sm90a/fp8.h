#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/sm90a/host_device.h"

/// FP8 e4m3 (4 bits of exponent, bias 7; 3 of mantissa; largest 448, no infinity, NaN 0x7f and 0xff) and the scales of
/// its rows, the same bits on host and device.
namespace rtlynx::sm90a {

inline constexpr float kLargestE4M3 = 448.0f;
/// Rows whose largest |x| is below 2^-100 are scaled as if it were that, so that its inverse stays finite.
inline constexpr float kSmallestAmax = 0x1p-100f;

/// A float to the nearest e4m3, ties to even; numbers beyond 448 and Inf become 448, every NaN 0x7f.
inline uint8_t e4m3_from_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;
  const uint32_t sign = bits >> 24 & 0x80u;
  const float size = std::fabs(value);
  uint32_t code;
  if (size >= kLargestE4M3) {
    code = 0x7e;
  } else if (size < 0x1p-6f) {  // multiples of 2^-9; the eighth is the smallest normal number
    code = static_cast<uint32_t>(std::nearbyint(size * 512.0f));
  } else {
    code = ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
  }
  return static_cast<uint8_t>(sign | code);
}

inline float float_from_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 0x7f) == 0x7f) return NAN;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                   : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (code & 0x80) != 0 ? -size : size;
}

/// Two floats to e4m3, `low` in bits 0-7, `high` in bits 8-15.
RTLYNX_HOST_DEVICE uint32_t e4m3_pair(float low, float high) {
#ifdef __CUDA_ARCH__
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return e4m3_from_float(low) | (static_cast<uint32_t>(e4m3_from_float(high)) << 8);
#endif
}

/// How a row with this largest magnitude is stored: x * inverse rounded to e4m3, to be multiplied by `scale`.
struct RowScale {
  float scale;    ///< amax / 448
  float inverse;  ///< 448 / amax
};

/// NaN gives NaN for both, so that all of the row becomes NaN; Inf gives the inverse 0, so that Inf becomes NaN.
RTLYNX_HOST_DEVICE RowScale row_scale(float amax) {
  const float limited = amax < kSmallestAmax ? kSmallestAmax : amax;
#ifdef __CUDA_ARCH__
  return {__fdiv_rn(limited, kLargestE4M3), __fdiv_rn(kLargestE4M3, limited)};
#else
  return {limited / kLargestE4M3, kLargestE4M3 / limited};
#endif
}

/// The two bf16 of a word, scaled, in e4m3: bits 0-7 the lower one's.
RTLYNX_HOST_DEVICE uint32_t quantize_pair(uint32_t pair, float inverse) {
  const uint32_t low_bits = pair << 16, high_bits = pair & 0xffff0000u;
#ifdef __CUDA_ARCH__
  return e4m3_pair(__fmul_rn(__uint_as_float(low_bits), inverse), __fmul_rn(__uint_as_float(high_bits), inverse));
#else
  float low, high;
  std::memcpy(&low, &low_bits, 4);
  std::memcpy(&high, &high_bits, 4);
  return e4m3_pair(low * inverse, high * inverse);
#endif
}

}  // namespace rtlynx::sm90a
