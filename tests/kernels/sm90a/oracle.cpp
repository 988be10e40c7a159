#include "oracle.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>

#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/prune_compress_config.h"
#include "kernels/sm90a/select24.h"

namespace rtlynx::test {
namespace {

constexpr uint16_t kSpecial[9] = {0xc000, 0xbf80, 0x8000, 0x0000, 0x3f80, 0x4000, 0x7fc0, 0x7f80, 0x0001};

/// -0 equals +0, every NaN is the same and above Inf.
uint32_t rank_of(uint16_t bits) {
  return std::min<uint32_t>(bits & 0x7fffu, 0x7f81u);
}

std::array<int, 2> kept_indices(const uint16_t* group) {
  std::array<int, 4> order{0, 1, 2, 3};
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return rank_of(group[a]) > rank_of(group[b]); });
  return {std::min(order[0], order[1]), std::max(order[0], order[1])};
}

struct Sums {
  float all[8][4] = {};
  float kept[8][4] = {};
};

float add_lanes_and_warps(const float (&lanes)[8][4]) {
  float total = 0.0f;
  for (int warp = 0; warp < 8; ++warp) {
    const float sum = (lanes[warp][0] + lanes[warp][1]) + (lanes[warp][2] + lanes[warp][3]);
    total = warp == 0 ? sum : total + sum;
  }
  return total;
}

}  // namespace

HostMatrix make_matrix(int64_t rows, int64_t cols, Fill fill, uint32_t seed) {
  HostMatrix matrix{rows, cols, std::vector<uint16_t>(static_cast<std::size_t>(rows * cols))};
  std::mt19937 random(seed);
  std::normal_distribution<float> gaussian;
  for (std::size_t i = 0; i < matrix.bits.size(); ++i) {
    switch (fill) {
      case Fill::kGaussian: matrix.bits[i] = bf16_from_float(gaussian(random)); break;
      case Fill::kSmallIntegers:
        matrix.bits[i] = bf16_from_float(static_cast<float>(static_cast<int>(random() % 5u) - 2));
        break;
      case Fill::kAnyBits: matrix.bits[i] = static_cast<uint16_t>(random()); break;
      case Fill::kSpecialGroups: {
        std::size_t digits = i / 4;
        for (std::size_t j = 0; j < i % 4; ++j) digits /= 9;
        matrix.bits[i] = kSpecial[digits % 9];
        break;
      }
    }
  }
  return matrix;
}

HostMatrix prune_by_sorting(const HostMatrix& x) {
  HostMatrix pruned{x.rows, x.cols, std::vector<uint16_t>(x.bits.size(), 0)};
  for (std::size_t group = 0; group < x.bits.size(); group += 4) {
    for (const int index : kept_indices(&x.bits[group])) {
      pruned.bits[group + static_cast<std::size_t>(index)] = x.bits[group + static_cast<std::size_t>(index)];
    }
  }
  return pruned;
}

std::vector<uint8_t> compress_like_kernel(const HostMatrix& x) {
  using namespace sm90a;
  const int64_t k_blocks = x.cols / kBlockK, row_blocks = (x.rows + kBlockRows - 1) / kBlockRows;
  std::vector<uint8_t> blocks(static_cast<std::size_t>(row_blocks * k_blocks * kBlockBytes), 0xee);
  for (int64_t unit = 0; unit < row_blocks * 4 * k_blocks; ++unit) {
    const int64_t k_block = unit % k_blocks, first_row = unit / k_blocks * kPruneRows;
    uint8_t* block = blocks.data() + block_offset(first_row / kBlockRows, k_block, k_blocks);
    for (int lane = 0; lane < 32; ++lane) {
      const int quarter = lane % 4;
      uint32_t metadata[2];
      for (int half = 0; half < 2; ++half) {
        const int64_t row = first_row + lane / 4 + 8 * half;
        uint32_t words[8] = {};
        if (row < x.rows)
          std::memcpy(words, &x.bits[static_cast<std::size_t>(row * x.cols + k_block * 64 + 16 * quarter)], 32);
        const PackedQuarter packed = pack_quarter(words);
        std::memcpy(block + value_offset(static_cast<int>(row % kBlockRows), quarter), packed.values, 16);
        metadata[half] = packed.metadata;
      }
      const uint32_t word = metadata[0] | (metadata[1] << 16);
      std::memcpy(block + metadata_offset(static_cast<int>((first_row + lane / 4) % kBlockRows), quarter), &word, 4);
    }
  }
  return blocks;
}

std::vector<float> scales_in_kernel_order(const HostMatrix& x) {
  const HostMatrix pruned = prune_by_sorting(x);
  std::vector<float> scales(static_cast<std::size_t>(x.rows));
  for (int64_t row = 0; row < x.rows; ++row) {
    Sums sums;
    for (int64_t k = 0; k < x.cols; ++k) {
      const int64_t warp = k / 64 % 8, lane = k / 16 % 4;
      float& all = sums.all[warp][lane];
      float& kept = sums.kept[warp][lane];
      all = std::fma(x.value(row, k), x.value(row, k), all);
      kept = std::fma(pruned.value(row, k), pruned.value(row, k), kept);
    }
    const float all = add_lanes_and_warps(sums.all), kept = add_lanes_and_warps(sums.kept);
    scales[static_cast<std::size_t>(row)] = std::sqrt(all / (kept + 1e-8f));
  }
  return scales;
}

std::vector<double> scales_exact(const HostMatrix& x) {
  const HostMatrix pruned = prune_by_sorting(x);
  std::vector<double> scales(static_cast<std::size_t>(x.rows));
  for (int64_t row = 0; row < x.rows; ++row) {
    double all = 0, kept = 0;
    for (int64_t k = 0; k < x.cols; ++k) {
      all += double{x.value(row, k)} * x.value(row, k);
      kept += double{pruned.value(row, k)} * pruned.value(row, k);
    }
    scales[static_cast<std::size_t>(row)] = std::sqrt(all / (kept + double{1e-8f}));
  }
  return scales;
}

double scale_bound(int64_t k) {
  // Two sums under a square root: half of each one's relative error; then + 1e-8, the quotient and the root.
  const double sum = (16.0 * static_cast<double>((k + 511) / 512) + 12.0) * 0x1p-24;
  return sum + 3 * 0x1p-24;
}

std::string check_scales(const HostMatrix& x, const std::vector<float>& scales) {
  const std::vector<double> exact = scales_exact(x);
  for (std::size_t row = 0; row < exact.size(); ++row) {
    if (!std::isfinite(exact[row])) continue;
    if (!(std::abs(double{scales[row]} - exact[row]) <= scale_bound(x.cols) * exact[row])) {
      return "row " + std::to_string(row) + ": scale " + std::to_string(scales[row]) + ", exact " +
             std::to_string(exact[row]);
    }
  }
  return "";
}

}  // namespace rtlynx::test
