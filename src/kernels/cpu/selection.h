#pragma once

#include <array>
#include <cstdint>

namespace rtlynx::cpu {

/// For the 4 mask bits of a group: first kept index in bits 0-1, second in bits 2-3. Masks that do not hold two bits
/// cannot occur.
inline constexpr std::array<uint8_t, 16> kGroupMetadata = [] {
  std::array<uint8_t, 16> table{};
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned j = i + 1; j < 4; ++j) table[(1u << i) | (1u << j)] = static_cast<uint8_t>(i | (j << 2));
  }
  return table;
}();

/// The same two indices as two uint32, the first in the lower half.
inline constexpr std::array<uint64_t, 16> kLanePairs = [] {
  std::array<uint64_t, 16> table{};
  for (unsigned bits = 0; bits < 16; ++bits) {
    table[bits] = (kGroupMetadata[bits] & 3u) | (static_cast<uint64_t>(kGroupMetadata[bits] >> 2) << 32);
  }
  return table;
}();

/// The pattern's number, 0..5 in the order (0,1) (0,2) (0,3) (1,2) (1,3) (2,3), by mask bits.
inline constexpr std::array<uint8_t, 16> kPatternNumber = [] {
  std::array<uint8_t, 16> table{};
  uint8_t number = 0;
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned j = i + 1; j < 4; ++j) table[(1u << i) | (1u << j)] = number++;
  }
  return table;
}();

/// For the 8 mask bits of two groups: their four kept rows times `row_bytes`, as four uint16.
constexpr std::array<uint64_t, 256> make_row_offsets(uint64_t row_bytes) {
  std::array<uint64_t, 256> table{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    const unsigned low = kGroupMetadata[bits & 15], high = kGroupMetadata[bits >> 4];
    const uint64_t rows[4] = {low & 3u, low >> 2, 4u + (high & 3u), 4u + (high >> 2)};
    for (unsigned i = 0; i < 4; ++i) table[bits] |= rows[i] * row_bytes << (16 * i);
  }
  return table;
}

/// For the 8 mask bits of two groups: their rows of weight pairs (six a group) times `row_bytes`, as two uint16.
constexpr std::array<uint32_t, 256> make_pair_offsets(uint32_t row_bytes) {
  std::array<uint32_t, 256> table{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    const uint32_t low = kPatternNumber[bits & 15], high = 6u + kPatternNumber[bits >> 4];
    table[bits] = low * row_bytes | (high * row_bytes << 16);
  }
  return table;
}

}  // namespace rtlynx::cpu
