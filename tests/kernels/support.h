#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "rtlynx/backend.h"
#include "rtlynx/linear.h"

namespace rtlynx::test {

/// A matrix with a padded row stride between two red zones; what lies outside of the elements is poisoned with NaN bits
/// and must stay as it was.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols, DType dtype, int64_t padding = 3);

  float at(int64_t i, int64_t j) const;
  void set(int64_t i, int64_t j, float value);
  MatrixView view() const;
  MutableMatrixView mutable_view();
  bool zones_are_intact() const;
  /// The elements' bytes, row by row.
  std::vector<uint8_t> bits() const;
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }

 private:
  int64_t index(int64_t i, int64_t j) const;
  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  DType dtype_;
  int64_t element_;
  std::vector<uint8_t> bytes_;
};

/// Gaussian values, rounded to the type.
Matrix gaussian(int64_t rows, int64_t cols, DType dtype, std::mt19937& random, float sigma = 1.0f);
/// Integers in [-limit, limit], so that sums are exact.
Matrix integers(int64_t rows, int64_t cols, DType dtype, std::mt19937& random, int limit);

/// Every SIMD target of this machine; forces one while it lives.
class ForcedTarget {
 public:
  explicit ForcedTarget(SimdTarget target) { EXPECT_TRUE(force_simd_target(target).ok()); }
  ~ForcedTarget() { EXPECT_TRUE(force_simd_target(std::nullopt).ok()); }
};

/// Where y differs from `expected` by more than `bound` in an element (NaN and Inf must be equal in kind), or "".
/// `bound` has y's shape; an all-zero expectation is itself an error, unless it is allowed.
std::string find_difference(const Matrix& y, const std::vector<double>& expected, const std::vector<double>& bound,
                            bool allow_zero = false);

/// The linear in fp64 by its definition, written without the library: groups sorted, sums in order.
struct Expected {
  std::vector<double> y;
  std::vector<double> magnitude;  ///< sum of |products|, of which the bound is a small part
};
struct Operands {
  const Matrix* x = nullptr;
  const Matrix* weight = nullptr;
  const Matrix* bias = nullptr;
  const Matrix* lora_a = nullptr;
  const Matrix* lora_b = nullptr;
};
Expected expected_linear(const Operands& operands, const EpilogueOptions& options);

/// Indices kept in a group of `count` <= 4, by stable sorting: the specification in three lines.
std::vector<int> kept_by_sorting(const float* group, int count);

/// The per-element bound |y - exact| <= rounding of the output + c * (k + r) * eps * magnitude.
std::vector<double> bound_of(const Expected& expected, int64_t k, DType dtype);

}  // namespace rtlynx::test
