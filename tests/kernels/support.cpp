#include "tests/kernels/support.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/bf16.h"

namespace rtlynx::test {
namespace {

constexpr int64_t kZoneBytes = 4096;
constexpr uint8_t kPoison = 0xff;  // all-ones is a NaN in fp32 and in bf16

}  // namespace

Matrix::Matrix(int64_t rows, int64_t cols, DType dtype, int64_t padding)
    : rows_(rows), cols_(cols), stride_(cols + padding), dtype_(dtype), element_(static_cast<int64_t>(size_of(dtype))) {
  bytes_.assign(static_cast<std::size_t>(2 * kZoneBytes + rows_ * stride_ * element_), kPoison);
}

int64_t Matrix::index(int64_t i, int64_t j) const {
  return kZoneBytes + (i * stride_ + j) * element_;
}

float Matrix::at(int64_t i, int64_t j) const {
  const uint8_t* p = bytes_.data() + index(i, j);
  float value = 0;
  uint16_t half = 0;
  if (dtype_ == DType::kF32) {
    std::memcpy(&value, p, 4);
    return value;
  }
  std::memcpy(&half, p, 2);
  return float_from_bf16(half);
}

void Matrix::set(int64_t i, int64_t j, float value) {
  uint8_t* p = bytes_.data() + index(i, j);
  const uint16_t half = bf16_from_float(value);
  if (dtype_ == DType::kF32) {
    std::memcpy(p, &value, 4);
  } else {
    std::memcpy(p, &half, 2);
  }
}

MatrixView Matrix::view() const {
  return {bytes_.data() + kZoneBytes, rows_, cols_, stride_, dtype_};
}

MutableMatrixView Matrix::mutable_view() {
  return {bytes_.data() + kZoneBytes, rows_, cols_, stride_, dtype_};
}

bool Matrix::zones_are_intact() const {
  std::vector<uint8_t> rest = bytes_;
  for (int64_t i = 0; i < rows_; ++i) {
    std::fill_n(rest.begin() + index(i, 0), cols_ * element_, kPoison);
  }
  return std::all_of(rest.begin(), rest.end(), [](uint8_t byte) { return byte == kPoison; });
}

std::vector<uint8_t> Matrix::bits() const {
  std::vector<uint8_t> out;
  for (int64_t i = 0; i < rows_; ++i) {
    out.insert(out.end(), bytes_.begin() + index(i, 0), bytes_.begin() + index(i, cols_));
  }
  return out;
}

Matrix gaussian(int64_t rows, int64_t cols, DType dtype, std::mt19937& random, float sigma) {
  Matrix out(rows, cols, dtype);
  std::normal_distribution<float> normal(0.0f, sigma);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) out.set(i, j, normal(random));
  }
  return out;
}

Matrix integers(int64_t rows, int64_t cols, DType dtype, std::mt19937& random, int limit) {
  Matrix out(rows, cols, dtype);
  std::uniform_int_distribution<int> uniform(-limit, limit);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) out.set(i, j, static_cast<float>(uniform(random)));
  }
  return out;
}

std::string find_difference(const Matrix& y, const std::vector<double>& expected, const std::vector<double>& bound,
                            bool allow_zero) {
  bool has_nonzero = expected.empty();
  for (int64_t i = 0; i < y.rows(); ++i) {
    for (int64_t j = 0; j < y.cols(); ++j) {
      const auto at = static_cast<std::size_t>(i * y.cols() + j);
      const double got = static_cast<double>(y.at(i, j)), want = expected[at];
      has_nonzero = has_nonzero || want != 0;
      const bool is_same_kind = std::isnan(want)   ? std::isnan(got)
                                : std::isinf(want) ? got == want
                                                   : std::isfinite(got);
      if (is_same_kind && (!std::isfinite(want) || std::fabs(got - want) <= bound[at])) continue;
      return "row " + std::to_string(i) + ", column " + std::to_string(j) + ": got " + std::to_string(got) +
             ", expected " + std::to_string(want) + " +- " + std::to_string(bound[at]);
    }
  }
  return has_nonzero || allow_zero ? "" : "everything expected is zero: the test proves nothing";
}

std::vector<int> kept_by_sorting(const float* group, int count) {
  std::vector<int> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  // NaN first, all alike; then rising -|x|.
  const auto key = [&](int i) {
    return std::isnan(group[i]) ? std::pair(0, 0.0) : std::pair(1, -std::fabs(static_cast<double>(group[i])));
  };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key(a) < key(b); });
  order.resize(static_cast<std::size_t>(std::min(2, count)));
  std::sort(order.begin(), order.end());
  return order;
}

Expected expected_linear(const Operands& o, const EpilogueOptions& options) {
  const int64_t m = o.x->rows(), k = o.x->cols(), n = o.weight->rows();
  Expected out;
  for (int64_t i = 0; i < m; ++i) {
    std::vector<std::pair<int64_t, double>> kept;
    double sum = 0, sum_kept = 0;
    for (int64_t g = 0; g < k; g += 4) {
      float group[4] = {};
      const int count = static_cast<int>(std::min<int64_t>(4, k - g));
      for (int e = 0; e < count; ++e) group[e] = o.x->at(i, g + e);
      for (int e = 0; e < count; ++e) sum += static_cast<double>(group[e]) * static_cast<double>(group[e]);
      for (const int e : kept_by_sorting(group, count)) {
        kept.emplace_back(g + e, static_cast<double>(group[e]));
        sum_kept += kept.back().second * kept.back().second;
      }
    }
    const double scale = options.use_scale ? std::sqrt(sum / (sum_kept + 1e-8)) : 1.0;
    const int64_t rank = o.lora_a != nullptr && options.use_lora ? o.lora_a->cols() : 0;
    std::vector<double> down(static_cast<std::size_t>(rank)), down_magnitude(down);
    for (int64_t r = 0; r < rank; ++r) {
      for (int64_t e = 0; e < k; ++e) {
        const double product = static_cast<double>(o.x->at(i, e)) * static_cast<double>(o.lora_a->at(e, r));
        down[static_cast<std::size_t>(r)] += product;
        down_magnitude[static_cast<std::size_t>(r)] += std::fabs(product);
      }
    }
    for (int64_t j = 0; j < n; ++j) {
      double y = 0, magnitude = 0;
      for (const auto& [e, value] : kept) {
        y += value * static_cast<double>(o.weight->at(j, e));
        magnitude += std::fabs(value * static_cast<double>(o.weight->at(j, e)));
      }
      y *= scale;
      magnitude *= scale;
      for (int64_t r = 0; r < rank; ++r) {
        const double b = static_cast<double>(o.lora_b->at(r, j));
        y += down[static_cast<std::size_t>(r)] * b;
        magnitude += down_magnitude[static_cast<std::size_t>(r)] * std::fabs(b);
      }
      if (o.bias != nullptr) y += static_cast<double>(o.bias->at(0, j));
      if (o.bias != nullptr) magnitude += std::fabs(static_cast<double>(o.bias->at(0, j)));
      out.y.push_back(y);
      out.magnitude.push_back(magnitude);
    }
  }
  return out;
}

std::vector<double> bound_of(const Expected& expected, int64_t k, DType dtype) {
  // fp32 sums of k terms err by sqrt(k) eps in practice and by k eps at worst; 4 sqrt(k) eps leaves room for the scale
  // (its own 16-fold sums) while a single dropped product of typical size, magnitude / k, stays 100 times larger.
  const double eps = 0x1p-24, output = dtype == DType::kF32 ? eps : 0x1p-8;
  std::vector<double> bound;
  for (std::size_t i = 0; i < expected.y.size(); ++i) {
    const double sums = 4 * std::sqrt(static_cast<double>(k) + 16) * eps * expected.magnitude[i];
    bound.push_back(output * (std::fabs(expected.y[i]) + sums) + sums + 1e-30);
  }
  return bound;
}

}  // namespace rtlynx::test
