#include "norm_oracle.h"

#include <algorithm>
#include <cmath>

#include "kernels/sm90a/norm_modulate_config.h"

namespace rtlynx::test {
namespace {

/// A sum over a row in the kernel's order: quarters of a block by four lanes, every fourth block of a CTA's range by a
/// warp.
template <typename Add>
float sum_over_row(const HostMatrix& x, int64_t row, int ctas, const Add& add) {
  const auto k_blocks = static_cast<int>(x.cols / 64);
  float total = 0.0f;
  for (int cta = 0; cta < ctas; ++cta) {
    const int first = sm90a::norm_first_block(k_blocks, ctas, cta);
    const int end = sm90a::norm_first_block(k_blocks, ctas, cta + 1);
    float of_cta = 0.0f;
    for (int warp = 0; warp < 4; ++warp) {
      float lanes[4] = {};
      for (int block = first + warp; block < end; block += 4) {
        for (int k = 0; k < 64; ++k) lanes[k / 16] = add(x.value(row, block * 64 + k), lanes[k / 16]);
      }
      const float of_warp = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
      of_cta = warp == 0 ? of_warp : of_cta + of_warp;
    }
    total = cta == 0 ? of_cta : total + of_cta;
  }
  return total;
}

float add_square(float value, float sum) {
  return std::fma(value, value, sum);
}

template <typename Number>
Number modulation(const HostMatrix& vector, int64_t rows_of_x, int64_t row, int64_t k, Number absent) {
  if (vector.rows == 0) return absent;
  return vector.value(row / (rows_of_x / vector.rows), k);
}

}  // namespace

HostMatrix norm_modulate_in_kernel_order(const NormInputs& in, int ctas) {
  const HostMatrix& x = in.x;
  HostMatrix y{x.rows, x.cols, std::vector<uint16_t>(x.bits.size())};
  const float one_over_k = 1.0f / static_cast<float>(x.cols);
  for (int64_t row = 0; row < x.rows; ++row) {
    const float sum = sum_over_row(x, row, ctas, [](float value, float so_far) { return so_far + value; });
    const float mean = in.layer_norm ? sum * one_over_k : 0.0f;
    const float mean_square = sum_over_row(x, row, ctas, add_square) * one_over_k;
    const float variance = std::max(std::fma(-mean, mean, mean_square), 0.0f);
    const float inverse = 1.0f / std::sqrt(variance + in.eps);
    const float offset = -(mean * inverse);
    for (int64_t k = 0; k < x.cols; ++k) {
      float factor = 1.0f + modulation(in.scale, x.rows, row, k, 0.0f);
      if (in.weight.rows > 0) factor = factor * in.weight.value(0, k);
      const float normal = std::fma(x.value(row, k), inverse, offset);
      y.at(row, k) = bf16_from_float(std::fma(normal, factor, modulation(in.shift, x.rows, row, k, 0.0f)));
    }
  }
  return y;
}

std::vector<float> norm_scales_in_kernel_order(const HostMatrix& y, int ctas) {
  const HostMatrix pruned = prune_by_sorting(y);
  std::vector<float> scales(static_cast<std::size_t>(y.rows));
  for (int64_t row = 0; row < y.rows; ++row) {
    const float all = sum_over_row(y, row, ctas, add_square), kept = sum_over_row(pruned, row, ctas, add_square);
    scales[static_cast<std::size_t>(row)] = std::sqrt(all / (kept + 1e-8f));
  }
  return scales;
}

std::string check_norm_modulate(const NormInputs& in, const HostMatrix& y) {
  const HostMatrix& x = in.x;
  const auto count = static_cast<double>(x.cols);
  for (int64_t row = 0; row < x.rows; ++row) {
    double mean = 0, squares = 0, largest = 0;
    for (int64_t k = 0; k < x.cols && in.layer_norm; ++k) mean += x.value(row, k) / count;
    for (int64_t k = 0; k < x.cols; ++k) {
      const double apart = x.value(row, k) - mean;
      squares += apart * apart;
      largest = std::max(largest, std::abs(double{x.value(row, k)}));
    }
    const double inverse = 1 / std::sqrt(squares / count + double{in.eps});
    for (int64_t k = 0; k < x.cols; ++k) {
      const double factor = (1 + modulation(in.scale, x.rows, row, k, 0.0)) * modulation(in.weight, 1, 0, k, 1.0);
      const double shift = modulation(in.shift, x.rows, row, k, 0.0);
      const double expected = (x.value(row, k) - mean) * inverse * factor + shift;
      // Chains of at most k / 64 + 96 additions in the statistics, whose errors the variance's cancellation enlarges; a
      // few roundings after them, then bf16's.
      const double relative = (count / 64 + 96) * 0x1p-24;
      const double cancelled = in.layer_norm ? 1 + mean * mean * inverse * inverse : 1;
      const double bound = relative * (2 * largest * inverse * std::abs(factor) + std::abs(shift) +
                                       cancelled * std::abs(expected - shift)) +
                           (0x1p-8 + 0x1p-16) * std::abs(expected);
      if (std::abs(double{y.value(row, k)} - expected) <= bound) continue;
      return "element (" + std::to_string(row) + ", " + std::to_string(k) + ") is " + std::to_string(y.value(row, k)) +
             ", expected " + std::to_string(expected);
    }
  }
  return "";
}

}  // namespace rtlynx::test
