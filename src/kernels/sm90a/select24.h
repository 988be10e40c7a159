#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/sm90a/host_device.h"

/// The 2:4 selection on bf16 bits, as the kernels run it and as tests without a GPU check it.
namespace rtlynx::sm90a {

/// Both halves of a word limited to `limit`'s halves, unsigned.
RTLYNX_HOST_DEVICE uint32_t min_halves(uint32_t a, uint32_t limit) {
#ifdef __CUDA_ARCH__
  return __vminu2(a, limit);
#else
  return std::min(a & 0xffffu, limit & 0xffffu) | (std::min(a >> 16, limit >> 16) << 16);
#endif
}

/// Byte i of the result is byte (selector >> 4 i) & 7 of the eight bytes low, high.
RTLYNX_HOST_DEVICE uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t selector) {
#ifdef __CUDA_ARCH__
  return __byte_perm(low, high, selector);
#else
  const uint64_t bytes = low | (static_cast<uint64_t>(high) << 32);
  uint32_t picked = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned index = (selector >> (4 * i)) & 7u;
    picked |= static_cast<uint32_t>((bytes >> (8 * index)) & 0xffu) << (8 * i);
  }
  return picked;
#endif
}

RTLYNX_HOST_DEVICE uint32_t larger(uint32_t a, uint32_t b) {
  return a > b ? a : b;
}
RTLYNX_HOST_DEVICE uint32_t smaller(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

/// The two kept elements of a group, the lower index in the low half, and the group's 4 bits of metadata.
struct KeptPair {
  uint32_t values;
  uint32_t metadata;
};

/// Selects from four bf16: elements 0, 1 in `low`, 2, 3 in `high`. About 25 instructions and no branch.
RTLYNX_HOST_DEVICE KeptPair select24(uint32_t low, uint32_t high) {
  // Without the sign, bf16 bits order like the numbers; 0x7f81 and above are NaN and count as one value.
  const uint32_t magnitude01 = min_halves(low & 0x7fff7fffu, 0x7f817f81u);
  const uint32_t magnitude23 = min_halves(high & 0x7fff7fffu, 0x7f817f81u);
  // The magnitude in the upper half and 3 - index below it: all keys differ, and the lower index wins a tie.
  const uint32_t key0 = (magnitude01 << 16) + 3u;
  const uint32_t key1 = (magnitude01 & 0xffff0000u) | 2u;
  const uint32_t key2 = (magnitude23 << 16) + 1u;
  const uint32_t key3 = magnitude23 & 0xffff0000u;
  const uint32_t winner01 = larger(key0, key1), loser01 = smaller(key0, key1);
  const uint32_t winner23 = larger(key2, key3), loser23 = smaller(key2, key3);
  const uint32_t first = larger(winner01, winner23);
  const uint32_t second = larger(smaller(winner01, winner23), larger(loser01, loser23));
  const uint32_t index_a = ~first & 3u, index_b = ~second & 3u;
  const uint32_t lower = smaller(index_a, index_b), upper = larger(index_a, index_b);
  // Element i is the bytes 2 i and 2 i + 1: selector nibbles 0x10 + 0x22 i.
  return {pick_bytes(low, high, 0x1010u + 0x22u * lower + 0x2200u * upper), lower | (upper << 2)};
}

/// 16 consecutive k of one row: the 16 bytes of kept values and the 16 bits of metadata (layout.h).
struct PackedQuarter {
  uint32_t values[4];
  uint32_t metadata;
};

RTLYNX_HOST_DEVICE PackedQuarter pack_quarter(const uint32_t (&x)[8]) {
  PackedQuarter packed{};
  RTLYNX_UNROLL
  for (int group = 0; group < 4; ++group) {
    const KeptPair kept = select24(x[2 * group], x[2 * group + 1]);
    packed.values[group] = kept.values;
    packed.metadata |= kept.metadata << (4 * group);
  }
  return packed;
}

}  // namespace rtlynx::sm90a
