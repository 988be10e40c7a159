// Correctness of FP8 on the GPU. Quantised weights and compressed activations must reproduce every byte that the host
// makes; products are compared with fp64 sums of the quantised values, bit for bit where all arithmetic is exact.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "../fp8_oracle.h"
#include "device_compressed.h"
#include "device_fp8.h"
#include "device_memory.h"
#include "fp64_product.h"
#include "kernels/sm90a/fp8.h"
#include "kernels/sm90a/spmm_config.h"
#include "rtlynx/sm90a_fp8.h"
#include "verify.h"

namespace rtlynx::check {
namespace {

using test::Fill;
using test::HostFp8;
using test::HostMatrix;

std::string check_quantize(int64_t n, int64_t k, Fill fill) {
  const HostMatrix w = test::make_matrix(n, k, fill, static_cast<uint32_t>(n * 17 + k));
  const DeviceMatrix device_w(w, 8);
  DeviceFp8 out(n, k, 32);
  require(sm90a::quantize_weight_fp8(device_w.view(), out.mutable_view(), out.factor(), nullptr));
  wait_for_device("quantize_weight_fp8");
  const HostFp8 expected = test::quantize_rows(w), got = out.download();
  if (got.codes != expected.codes) return "other codes than the host's";
  if (device_w.download("w").bits != w.bits) return "w was changed";
  return difference(got.factor, expected.factor, "factor of row");
}

std::string check_prune(int64_t m, int64_t k, Fill fill, bool norm_compensation) {
  const HostMatrix x = test::make_matrix(m, k, fill, static_cast<uint32_t>(m * 31 + k));
  const DeviceMatrix device_x(x, 8);
  DeviceCompressedFp8 first(m, k), second(m, k);
  for (DeviceCompressedFp8* out : {&first, &second}) {
    require(sm90a::prune_compress_fp8(device_x.view(), out->view, norm_compensation, nullptr));
    wait_for_device("prune_compress_fp8 " + std::to_string(m) + "x" + std::to_string(k));
  }
  const std::vector<uint8_t> blocks = between_zones(first.blocks, "blocks");
  const std::vector<uint8_t> factor = between_zones(first.factor, "factor");
  if (blocks != between_zones(second.blocks, "blocks") || factor != between_zones(second.factor, "factor")) {
    return "a second run gave other bits";
  }
  if (device_x.download("x").bits != x.bits) return "x was changed";
  const HostFp8 expected = test::prune_and_quantize(x, norm_compensation);
  if (std::string text = difference(blocks, test::compress_fp8(x, expected), 5120); !text.empty()) return text;
  return difference(as_floats(factor), expected.factor, "factor of row");
}

struct Fp8Case {
  int64_t m, n, k;
  int tile = -1;
  Fill fill = Fill::kSmallIntegers;
  bool factors = false;  ///< of integers; normal values always have theirs
  bool bias = false;
  int64_t rank = 0;
  int64_t images = 0;

  bool exact() const { return fill == Fill::kSmallIntegers && !(factors && rank > 0); }
  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + " tile " + std::to_string(tile) +
           (fill == Fill::kGaussian ? " gaussian" : " integers") + (factors ? " factors" : "") + (bias ? " bias" : "") +
           (rank > 0 ? " rank " + std::to_string(rank) : "") +
           (images > 0 ? " gate of " + std::to_string(images) + " images" : "");
  }
};

/// Integers as they are, with random factors or 1.
HostFp8 integer_codes(const HostMatrix& x, bool factors, uint32_t seed) {
  HostFp8 out = test::prune_and_quantize(x, false);
  std::mt19937 random(seed);
  for (std::size_t i = 0; i < x.bits.size(); ++i) {
    if (out.codes[i] != 0) out.codes[i] = sm90a::e4m3_from_float(float_from_bf16(x.bits[i]));
  }
  for (float& factor : out.factor) factor = factors ? 0.25f + static_cast<float>(random() % 4096u) * 0x1p-11f : 1.0f;
  return out;
}

/// The operands of a product on the device, and what they hold.
struct Operands {
  explicit Operands(const Fp8Case& test) : device_a(test.m, test.k), device_w(test.n, test.k, 16) {
    const auto seed = static_cast<uint32_t>(test.m + 7 * test.n + 13 * test.k);
    const HostMatrix x = test::make_matrix(test.m, test.k, test.fill, seed);
    const HostMatrix dense_w = test::make_matrix(test.n, test.k, test.fill, seed + 1);
    if (test.fill == Fill::kGaussian) {
      const DeviceMatrix device_x(x), device_dense(dense_w);
      require(sm90a::prune_compress_fp8(device_x.view(), device_a.view, true, nullptr));
      require(sm90a::quantize_weight_fp8(device_dense.view(), device_w.mutable_view(), device_w.factor(), nullptr));
      wait_for_device("quantisation");
      a = test::prune_and_quantize(x, true);
      w = test::quantize_rows(dense_w);
    } else {
      a = integer_codes(x, test.factors, seed);
      w = test::quantize_rows(dense_w);
      for (std::size_t i = 0; i < w.codes.size(); ++i) {
        w.codes[i] = sm90a::e4m3_from_float(float_from_bf16(dense_w.bits[i]));
      }
      w.factor = integer_codes(dense_w, test.factors, seed + 9).factor;
      const std::vector<uint8_t> blocks = test::compress_fp8(x, a);
      device_a.blocks.upload(blocks.data(), blocks.size());
      device_a.factor.upload(a.factor.data(), a.factor.size() * 4);
      device_w.upload(w);
    }
  }

  HostFp8 a, w;
  DeviceCompressedFp8 device_a;
  DeviceFp8 device_w;
};

struct Extras {
  HostMatrix bias, down, up, gate, residual;
};

/// How far sums of e4m3 products may be from exact ones, as a part of the sum of magnitudes. A step of 64 k aligns its
/// products and the sum so far to the largest of them and cuts off below 14 bits; for normal values the sum so far, at
/// most 5 / 0.64 / sqrt(k / 2) of all magnitudes, is the largest, and what one step cuts off is taken as one unit.
double accumulation_bound(int64_t k) {
  const double steps = static_cast<double>(k) / 64 + 1, terms = static_cast<double>(k) / 2;
  return steps * 0x1p-13 * std::min(1.0, 5 / 0.64 / std::sqrt(terms));
}

/// Compares every element; adds to `largest` the greatest part of the bound that an error took.
std::string compare(const Fp8Case& test, const HostMatrix& d, const Reference& product, const Reference* low_rank,
                    const Operands& operands, const Extras& extras, double& largest) {
  for (int64_t row = 0; row < test.m; ++row) {
    for (int64_t column = 0; column < test.n; ++column) {
      const auto i = static_cast<std::size_t>(row * test.n + column);
      const float by_row = operands.a.factor[static_cast<std::size_t>(row)];
      const float by_column = operands.w.factor[static_cast<std::size_t>(column)];
      const double low = low_rank == nullptr ? 0 : low_rank->sum[i];
      const float bias = test.bias ? extras.bias.value(0, column) : 0.0f;
      const double scale = double{by_row} * by_column;
      float rounded = static_cast<float>(product.sum[i]) * by_row;
      rounded *= by_column;
      rounded += static_cast<float>(low);
      rounded += bias;
      double y = scale * product.sum[i] + low + double{bias};
      const double low_size = low_rank == nullptr ? 0 : low_rank->magnitude[i];
      double bound = accumulation_bound(test.k) * scale * product.magnitude[i] +
                     16 * 0x1p-23 * (low_size + std::abs(bias) + std::abs(y));
      if (test.images > 0) {
        const float gate = extras.gate.value(row / (test.m / test.images), column);
        const float residual = extras.residual.value(row, column);
        rounded = std::fma(gate, rounded, residual);
        y = residual + double{gate} * y;
        bound = std::abs(gate) * bound + 0x1p-22 * std::abs(residual);
      }
      const double error = std::abs(double{d.value(row, column)} - y);
      const bool good =
          test.exact() ? d.at(row, column) == bf16_from_float(rounded) : error <= bound + 0x1p-8 * std::abs(y);
      if (!test.exact()) largest = std::max(largest, (error - 0x1p-8 * std::abs(y)) / bound);
      if (good) continue;
      return "element (" + std::to_string(row) + ", " + std::to_string(column) + ") is " +
             std::to_string(d.value(row, column)) + ", expected " + std::to_string(y) + ", bound " +
             std::to_string(bound);
    }
  }
  return "";
}

/// Root mean square of the error over that of the exact values.
double relative_error(const HostMatrix& d, const Reference& product, const Operands& operands) {
  double error = 0, size = 0;
  for (int64_t row = 0; row < d.rows; ++row) {
    for (int64_t column = 0; column < d.cols; ++column) {
      const double scale = double{operands.a.factor[static_cast<std::size_t>(row)]} *
                           operands.w.factor[static_cast<std::size_t>(column)];
      const double y = scale * product.sum[static_cast<std::size_t>(row * d.cols + column)];
      error += (d.value(row, column) - y) * (d.value(row, column) - y);
      size += y * y;
    }
  }
  return std::sqrt(error / size);
}

std::string check_case(const Fp8Case& test) {
  const auto seed = static_cast<uint32_t>(test.m * 3 + test.n + test.k);
  const int64_t rank = test.rank > 0 ? test.rank : 8, images = std::max<int64_t>(test.images, 1);
  const Operands operands(test);
  const Extras extras{
      test::make_matrix(1, test.n, test.fill, seed + 2), test::make_matrix(test.m, rank, test.fill, seed + 3),
      test::make_matrix(test.n, rank, test.fill, seed + 4), test::make_matrix(images, test.n, test.fill, seed + 5),
      test::make_matrix(test.m, test.n, test.fill, seed + 6)};
  const DeviceMatrix bias(extras.bias), down(extras.down, 8), up(extras.up, 8), gate(extras.gate, 8),
      residual(extras.residual, 40);
  sm90a::SpmmOptions options;
  options.tile = test.tile;
  if (test.bias) options.bias = bias.view();
  if (test.rank > 0) {
    options.lora_down = down.view();
    options.lora_up = up.view();
  }
  if (test.images > 0) {
    options.gate = gate.view();
    options.residual = residual.view();
  }
  DeviceMatrix outputs[2] = {{test.m, test.n, 24}, {test.m, test.n, 24}};
  for (DeviceMatrix& d : outputs) {
    require(sm90a::spmm_fp8(read_only(operands.device_a.view), operands.device_w.weight(), d.mutable_view(), options,
                            nullptr));
    wait_for_device("spmm_fp8 " + test.name());
  }
  HostMatrix d = outputs[0].download("d");
  if (d.bits != outputs[1].download("d").bits) return "a second run gave other bits";
  if (operands.device_w.download().codes != operands.w.codes) return "w was changed";
  between_zones(operands.device_a.blocks, "blocks");

  const Reference product = product_in_fp64(test::widened(operands.a), test::widened(operands.w));
  Reference low_rank;
  if (test.rank > 0) low_rank = product_in_fp64(extras.down, extras.up);
  const Reference* low = test.rank > 0 ? &low_rank : nullptr;
  double largest = 0;
  if (std::string text = compare(test, d, product, low, operands, extras, largest); !text.empty()) return text;
  if (!test.exact()) {
    std::printf("   %s: errors reach %.2f of the bound", test.name().c_str(), largest);
    if (low == nullptr && !test.bias && test.images == 0) {
      // Rounding to bf16 alone makes 0.0017. What the sums add grows with the root of their steps.
      const double error = relative_error(d, product, operands);
      const double limit = std::sqrt(0.0017 * 0.0017 + 0x1p-26 * static_cast<double>(test.k) / 64);
      std::printf(", relative error %.5f of at most %.5f", error, limit);
      if (!(error <= limit)) return "the relative error is too large";
    }
    std::printf("\n");
  }
  // The comparison itself must see one wrong element, the last one, off by more than the bound at any value.
  const float last = d.value(test.m - 1, test.n - 1);
  const auto step = static_cast<float>(product.magnitude.back() * operands.a.factor.back() * operands.w.factor.back());
  d.at(test.m - 1, test.n - 1) = bf16_from_float(last + std::max(step, std::abs(last) / 16) + 1.0f);
  return compare(test, d, product, low, operands, extras, largest).empty() ? "the comparison missed a planted error"
                                                                           : "";
}

std::string check_gelu(int64_t m, int64_t n, int64_t k, int tile) {
  const Operands operands({m, n, k, tile, Fill::kGaussian});
  DeviceMatrix plain(m, n), gelu(m, n, 8);
  sm90a::SpmmOptions options{.tile = tile};
  const auto multiply = [&](DeviceMatrix& d) {
    require(sm90a::spmm_fp8(read_only(operands.device_a.view), operands.device_w.weight(), d.mutable_view(), options,
                            nullptr));
    wait_for_device("spmm_fp8, gelu");
  };
  multiply(plain);
  options.activation = sm90a::Activation::kGeluTanh;
  multiply(gelu);
  return compare_gelu(plain.download("d"), gelu.download("gelu"));
}

std::vector<Fp8Case> cases_of(bool quick) {
  std::vector<Fp8Case> cases;
  for (int tile = -1; tile < sm90a::kSpmmTileCount; ++tile) {
    const auto add = [&](Fp8Case test) {
      if (test.images > 0 && tile == 1) return;  // has no such kernel
      test.tile = tile;
      cases.push_back(test);
    };
    for (const int64_t k_blocks : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13}) add({130, 264, 128 * k_blocks});
    for (const int64_t m : {1, 63, 65, 129, 257, 385}) add({m, 520, 384});
    for (const int64_t n : {8, 56, 72, 136, 192, 200, 264}) add({100, n, 384, -1, Fill::kSmallIntegers, true});
    for (const int64_t rank : {8, 40, 128}) add({200, 328, 256, -1, Fill::kSmallIntegers, false, true, rank});
    add({513, 1064, 896, -1, Fill::kSmallIntegers, true, true});
    add({385, 520, 384, -1, Fill::kSmallIntegers, true, true, 0, 5});
    add({300, 520, 640, -1, Fill::kGaussian});
    add({300, 520, 640, -1, Fill::kGaussian, false, true, 64, 3});
    if (quick || tile < 0) continue;
    add({1000, 1064, 12288, -1, Fill::kSmallIntegers, true, true});
    add({2500, 2600, 128, -1, Fill::kSmallIntegers, false, true, 16});
    for (const int64_t k : {3072, 12288}) add({400, 776, k, -1, Fill::kGaussian});
  }
  return cases;
}

}  // namespace

int verify_fp8(bool quick) {
  int failures = 0, count = 0;
  for (const Fill fill : {Fill::kGaussian, Fill::kSmallIntegers, Fill::kAnyBits, Fill::kSpecialGroups}) {
    const auto shapes = {std::pair<int64_t, int64_t>{1, 128},
                         {65, 640},
                         {100, 1024},
                         {130, 3072},
                         {70, 4224},
                         {33, 6272},
                         {20, 12288},
                         {10, 16512},
                         {9, 24576}};
    for (const auto& [m, k] : shapes) {
      const std::string size = std::to_string(m) + "x" + std::to_string(k);
      count += 2;
      failures += run_check("quantize_weight_fp8 " + size, [&, m = m, k = k] { return check_quantize(m, k, fill); });
      failures +=
          run_check("prune_compress_fp8 " + size, [&, m = m, k = k] { return check_prune(m, k, fill, m % 2 == 0); });
    }
  }
  std::printf("prune_compress_fp8, quantize_weight_fp8: %d matrices checked, %d failed\n", count, failures);
  int product_failures = 0;
  const std::vector<Fp8Case> cases = cases_of(quick);
  for (const Fp8Case& test : cases) {
    product_failures += run_check("spmm_fp8 " + test.name(), [&] { return check_case(test); });
    // After a fault of the device every further call fails too.
    if (cudaPeekAtLastError() != cudaSuccess || product_failures > 20) break;
  }
  for (int tile = 0; tile < sm90a::kSpmmTileCount; ++tile) {
    product_failures += run_check("spmm_fp8 gelu", [&] { return check_gelu(200, 520, 640, tile); });
  }
  std::printf("spmm_fp8: %zu products checked, %d failed\n", cases.size() + sm90a::kSpmmTileCount, product_failures);
  std::fflush(stdout);
  return failures + product_failures;
}

}  // namespace rtlynx::check
