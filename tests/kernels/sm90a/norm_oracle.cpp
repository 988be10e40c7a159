#include "norm_oracle.h"

#include <cmath>

namespace rtlynx::test {
namespace {

/// A warp's sum over a row: lane (k / 8) % 32 folds in its elements in rising order, then lanes are added pairwise.
template <typename Add>
float sum_over_row(const HostMatrix& x, int64_t row, const Add& add) {
  float lanes[32] = {};
  for (int64_t k = 0; k < x.cols; ++k) {
    float& lane = lanes[k / 8 % 32];
    lane = add(x.value(row, k), lane);
  }
  for (int apart = 16; apart > 0; apart /= 2) {
    for (int lane = 0; lane < apart; ++lane) lanes[lane] = lanes[lane] + lanes[lane + apart];
  }
  return lanes[0];
}

template <typename Number>
Number modulation(const HostMatrix& vector, int64_t rows_of_x, int64_t row, int64_t k, Number absent) {
  if (vector.rows == 0) return absent;
  return vector.value(row / (rows_of_x / vector.rows), k);
}

}  // namespace

HostMatrix norm_modulate_in_kernel_order(const NormInputs& in) {
  const HostMatrix& x = in.x;
  HostMatrix y{x.rows, x.cols, std::vector<uint16_t>(x.bits.size())};
  const auto count = static_cast<float>(x.cols);
  for (int64_t row = 0; row < x.rows; ++row) {
    float mean = 0.0f;
    if (in.layer_norm) mean = sum_over_row(x, row, [](float value, float sum) { return sum + value; }) / count;
    const float squares =
        sum_over_row(x, row, [&](float value, float sum) { return std::fma(value - mean, value - mean, sum); });
    const float inverse = 1.0f / std::sqrt(squares / count + in.eps);
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
      // Chains of k / 32 + 5 additions in the statistics, a few roundings after them, then bf16's.
      const double relative = (count / 32 + 16) * 0x1p-24;
      const double bound = relative * (2 * largest * inverse * std::abs(factor) + std::abs(shift)) +
                           (0x1p-8 + 0x1p-16) * std::abs(expected);
      if (std::abs(double{y.value(row, k)} - expected) <= bound) continue;
      return "element (" + std::to_string(row) + ", " + std::to_string(k) + ") is " + std::to_string(y.value(row, k)) +
             ", expected " + std::to_string(expected);
    }
  }
  return "";
}

}  // namespace rtlynx::test
