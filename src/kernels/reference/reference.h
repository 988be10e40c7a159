#pragma once

#include <cstdint>

#include "rtlynx/spmm.h"

/// The oracle: loops that anyone can check, sums in fp64. It never allocates more than a row, through the seam.
namespace rtlynx::reference {

/// The two kept indices of a group of four, first < second; `count` < 4 elements stand for a tail filled with zeros.
struct Kept {
  int first = 0;
  int second = 1;
};
Kept select_group(const float* group, int64_t count);

/// x with every dropped element set to +0.
void prune_row(const float* x, int64_t k, float* out);

/// Compressed24's values (as fp32) and metadata of one token; returns its scale.
float compress_row(const float* x, int64_t k, float* values, uint8_t* metadata);

/// out[j] = sum over k of x[k] * lora_a[k][j].
void lora_down_row(const float* x, int64_t k, const float* lora_a, int64_t rank, float* out);

/// One row of spmm, from a's row `row`; `weight` [n, k], `bias` [n] or nullptr, `lora_b` [rank, n], all fp32.
struct Operands {
  const float* weight = nullptr;
  const float* bias = nullptr;
  const float* lora_b = nullptr;
  int64_t n = 0;
  int64_t k = 0;
  int64_t rank = 0;
};
struct Token {
  const float* values = nullptr;
  const uint8_t* metadata = nullptr;
  float scale = 1;
  const float* lora_down = nullptr;
};
void linear_row(const Operands& operands, const Token& token, float* y);

}  // namespace rtlynx::reference
