#include "kernels/reference/reference.h"

#include <algorithm>
#include <cmath>

#include "kernels/norm_scale.h"

namespace rtlynx::reference {
namespace {

/// Whether a beats b on magnitude alone; every NaN is as large as any other.
bool is_larger(float a, float b) {
  if (std::isnan(b)) return false;
  return std::isnan(a) || std::fabs(a) > std::fabs(b);
}

}  // namespace

Kept select_group(const float* group, int64_t count) {
  float x[4] = {};
  std::copy_n(group, std::min<int64_t>(count, 4), x);
  int best = 0;
  for (int i = 1; i < 4; ++i) {
    if (is_larger(x[i], x[best])) best = i;
  }
  int next = best == 0 ? 1 : 0;
  for (int i = next + 1; i < 4; ++i) {
    if (i != best && is_larger(x[i], x[next])) next = i;
  }
  return {std::min(best, next), std::max(best, next)};
}

void prune_row(const float* x, int64_t k, float* out) {
  for (int64_t begin = 0; begin < k; begin += 4) {
    const int64_t count = std::min<int64_t>(4, k - begin);
    const Kept kept = select_group(x + begin, count);
    for (int i = 0; i < count; ++i) out[begin + i] = i == kept.first || i == kept.second ? x[begin + i] : 0.0f;
  }
}

float compress_row(const float* x, int64_t k, float* values, uint8_t* metadata) {
  float all[16] = {}, pruned[16] = {};
  for (int64_t begin = 0; begin < k; begin += 4) {
    const int64_t count = std::min<int64_t>(4, k - begin);
    const Kept kept = select_group(x + begin, count);
    metadata[begin / 4] = static_cast<uint8_t>(kept.first | (kept.second << 2));
    values[begin / 2] = x[begin + kept.first];
    values[begin / 2 + 1] = kept.second < count ? x[begin + kept.second] : 0.0f;
    for (int i = 0; i < count; ++i) {
      const float v = x[begin + i];
      float& sum = all[(begin + i) % 16];
      sum = std::fma(v, v, sum);
      if (i != kept.first && i != kept.second) continue;
      float& sum_kept = pruned[(begin + i) % 16];
      sum_kept = std::fma(v, v, sum_kept);
    }
  }
  return norm_scale(add_in_halves(all), add_in_halves(pruned));
}

void lora_down_row(const float* x, int64_t k, const float* lora_a, int64_t rank, float* out) {
  for (int64_t j = 0; j < rank; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(lora_a[i * rank + j]);
    out[j] = static_cast<float>(sum);
  }
}

void linear_row(const Operands& operands, const Token& token, float* y) {
  for (int64_t j = 0; j < operands.n; ++j) {
    const float* w = operands.weight + j * operands.k;
    double sum = 0;
    for (int64_t g = 0; g * 4 < operands.k; ++g) {
      for (int i = 0; i < 2; ++i) {
        const int64_t k = g * 4 + ((token.metadata[g] >> (2 * i)) & 3);
        if (k < operands.k) sum += static_cast<double>(token.values[2 * g + i]) * static_cast<double>(w[k]);
      }
    }
    sum *= static_cast<double>(token.scale);
    for (int64_t r = 0; r < operands.rank; ++r) {
      sum += static_cast<double>(token.lora_down[r]) * static_cast<double>(operands.lora_b[r * operands.n + j]);
    }
    if (operands.bias != nullptr) sum += static_cast<double>(operands.bias[j]);
    y[j] = static_cast<float>(sum);
  }
}

}  // namespace rtlynx::reference
