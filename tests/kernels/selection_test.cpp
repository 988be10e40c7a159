// Selection is bit-exact in every back end and SIMD target: all groups over nine special values, every tail, random
// rows.
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/kernels/support.h"

namespace rtlynx::test {
namespace {

struct Runner {
  Backend backend;
  SimdTarget target;
};

std::vector<Runner> runners() {
  std::vector<Runner> all{{Backend::kReference, SimdTarget::kPortable}};
  for (const SimdTarget target : supported_simd_targets()) all.push_back({Backend::kCpu, target});
  return all;
}

const std::array<float, 9>& special_values() {
  static const std::array<float, 9> values{-2.0f,
                                           -1.0f,
                                           -0.0f,
                                           0.0f,
                                           1.0f,
                                           2.0f,
                                           std::numeric_limits<float>::quiet_NaN(),
                                           std::numeric_limits<float>::infinity(),
                                           0x1p-130f};
  return values;
}

/// Row i holds the i-th tuple of `width` special values, in front of which `lead` copies of (3, 3, 3, 3) stand.
Matrix all_tuples(DType dtype, int width, int lead) {
  int64_t rows = 1;
  for (int i = 0; i < width; ++i) rows *= 9;
  Matrix x(rows, 4 * lead + width, dtype);
  for (int64_t i = 0; i < rows; ++i) {
    for (int e = 0; e < 4 * lead; ++e) x.set(i, e, 3.0f);
    int64_t rest = i;
    for (int e = 0; e < width; ++e, rest /= 9) {
      x.set(i, 4 * lead + e, special_values()[static_cast<std::size_t>(rest % 9)]);
    }
  }
  return x;
}

/// prune, compress, metadata and decompress of x against sorting, bit by bit.
void check_selection(const Matrix& x, Backend backend) {
  const int64_t element = static_cast<int64_t>(size_of(x.dtype()));
  Matrix expected(x.rows(), x.cols(), x.dtype());
  std::vector<uint8_t> metadata;
  for (int64_t i = 0; i < x.rows(); ++i) {
    for (int64_t g = 0; g < x.cols(); g += 4) {
      float group[4] = {};
      const int count = static_cast<int>(std::min<int64_t>(4, x.cols() - g));
      for (int e = 0; e < count; ++e) {
        group[e] = x.at(i, g + e);
        expected.set(i, g + e, 0.0f);
      }
      auto kept = kept_by_sorting(group, count);
      for (const int e : kept) {
        const int64_t at = (g + e) * element;
        const auto* from = static_cast<const uint8_t*>(x.view().data) + i * x.view().row_stride * element + at;
        auto* to = static_cast<uint8_t*>(expected.mutable_view().data) + i * expected.view().row_stride * element + at;
        std::memcpy(to, from, static_cast<std::size_t>(element));
      }
      if (count == 1) kept.push_back(1);
      metadata.push_back(static_cast<uint8_t>(kept[0] | (kept[1] << 2)));
    }
  }
  Matrix pruned(x.rows(), x.cols(), x.dtype(), 5);
  ASSERT_TRUE(prune(x.view(), pruned.mutable_view(), backend).ok());
  EXPECT_EQ(pruned.bits(), expected.bits());
  EXPECT_TRUE(pruned.zones_are_intact());

  const auto compressed = prune_compress(x.view(), {}, backend);
  ASSERT_TRUE(compressed.ok());
  const auto* got = reinterpret_cast<const uint8_t*>(compressed.value().metadata.get());
  EXPECT_EQ(std::vector<uint8_t>(got, got + metadata.size()), metadata);
  Matrix restored(x.rows(), x.cols(), x.dtype(), 1);
  ASSERT_TRUE(decompress(compressed.value(), restored.mutable_view()).ok());
  EXPECT_EQ(restored.bits(), expected.bits());
  EXPECT_TRUE(restored.zones_are_intact());
}

TEST(Selection, AllGroupsOfSpecialValuesAndAllTails) {
  for (const Runner& runner : runners()) {
    const ForcedTarget forced(runner.target);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(std::string(backend_name(runner.backend)) + " " + std::string(simd_target_name(runner.target)) +
                   " " + std::string(dtype_name(dtype)));
      check_selection(all_tuples(dtype, 4, 0), runner.backend);
      for (const int tail : {1, 2, 3}) check_selection(all_tuples(dtype, tail, 0), runner.backend);
      for (const int lead : {1, 3, 4, 6}) check_selection(all_tuples(dtype, 3, lead), runner.backend);
    }
  }
}

TEST(Selection, RandomRowsOfEveryLength) {
  std::mt19937 random(7);
  for (const Runner& runner : runners()) {
    const ForcedTarget forced(runner.target);
    for (int64_t k = 1; k <= 70; ++k) {
      SCOPED_TRACE(k);
      check_selection(integers(3, k, k % 2 == 0 ? DType::kF32 : DType::kBF16, random, 3), runner.backend);
    }
  }
}

TEST(Selection, KeepsTheBitsOfASignallingNan) {
  for (const Runner& runner : runners()) {
    const ForcedTarget forced(runner.target);
    std::array<uint16_t, 4> x{0x3f80, 0x7f81, 0xffc1, 0x4000};
    std::array<uint16_t, 4> out{};
    ASSERT_TRUE(prune({x.data(), 1, 4, 4, DType::kBF16}, {out.data(), 1, 4, 4, DType::kBF16}, runner.backend).ok());
    EXPECT_EQ(out, (std::array<uint16_t, 4>{0, 0x7f81, 0xffc1, 0}));
  }
}

TEST(Scale, IsTheSameBitForBitEverywhereAndRight) {
  std::mt19937 random(11);
  for (const int64_t k : {1, 2, 3, 4, 15, 16, 17, 64, 100, 1000, 3072}) {
    const Matrix x = gaussian(9, k, DType::kF32, random, 0.5f);
    const auto expected = prune_compress(x.view(), {}, Backend::kReference);
    ASSERT_TRUE(expected.ok());
    const auto* scale = reinterpret_cast<const float*>(expected.value().scale.get());
    for (const Runner& runner : runners()) {
      const ForcedTarget forced(runner.target);
      const auto got = prune_compress(x.view(), {}, runner.backend);
      ASSERT_TRUE(got.ok());
      EXPECT_EQ(std::memcmp(got.value().scale.get(), scale, 9 * sizeof(float)), 0) << "k " << k;
    }
    for (int64_t i = 0; i < x.rows(); ++i) {
      double sum = 0, sum_kept = 0;
      for (int64_t g = 0; g < k; g += 4) {
        float group[4] = {};
        const int count = static_cast<int>(std::min<int64_t>(4, k - g));
        for (int e = 0; e < count; ++e) group[e] = x.at(i, g + e);
        for (int e = 0; e < count; ++e) sum += static_cast<double>(group[e]) * static_cast<double>(group[e]);
        for (const int e : kept_by_sorting(group, count)) {
          sum_kept += static_cast<double>(group[e]) * static_cast<double>(group[e]);
        }
      }
      const double exact = std::sqrt(sum / (sum_kept + 1e-8));
      EXPECT_NEAR(static_cast<double>(scale[i]), exact, 1e-5 * exact);
    }
  }
}

TEST(Scale, OfSpecialRows) {
  for (const Runner& runner : runners()) {
    const ForcedTarget forced(runner.target);
    Matrix x(4, 8, DType::kF32);
    for (int64_t j = 0; j < 8; ++j) {
      x.set(0, j, 0.0f);
      x.set(1, j, j == 3 ? std::numeric_limits<float>::quiet_NaN() : 1.0f);
      x.set(2, j, j == 3 ? std::numeric_limits<float>::infinity() : 1.0f);
      x.set(3, j, j % 4 < 2 ? 3.0f : 0.0f);
    }
    const auto compressed = prune_compress(x.view(), {}, runner.backend);
    ASSERT_TRUE(compressed.ok());
    const auto* scale = reinterpret_cast<const float*>(compressed.value().scale.get());
    EXPECT_EQ(scale[0], 0.0f);
    EXPECT_TRUE(std::isnan(scale[1]));
    EXPECT_TRUE(std::isnan(scale[2])) << "Inf / Inf";
    EXPECT_EQ(scale[3], 1.0f);
  }
}

TEST(Prune, MayWorkInPlace) {
  std::mt19937 random(3);
  Matrix x = gaussian(5, 21, DType::kBF16, random);
  Matrix out(5, 21, DType::kBF16);
  ASSERT_TRUE(prune(x.view(), out.mutable_view()).ok());
  ASSERT_TRUE(prune(x.view(), x.mutable_view()).ok());
  EXPECT_EQ(x.bits(), out.bits());
  EXPECT_TRUE(x.zones_are_intact());
}

}  // namespace
}  // namespace rtlynx::test
