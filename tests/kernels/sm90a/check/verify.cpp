// Correctness on the GPU. prune_compress must reproduce every byte that the host makes with the same selection code
// (itself held against sorting and the instruction set's description in kernels_sm90a_test). spmm is compared with fp64
// sums of the pruned matrix: bit for bit where all arithmetic is exact, else within a bound for each element.
#include "verify.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>

#include "device_compressed.h"
#include "device_memory.h"
#include "fp64_product.h"
#include "kernels/sm90a/spmm_config.h"
#include "rtlynx/sm90a.h"

namespace rtlynx::check {
namespace {

using test::Fill;
using test::HostMatrix;

std::string check_prune(int64_t m, int64_t k, Fill fill) {
  const HostMatrix x = test::make_matrix(m, k, fill, static_cast<uint32_t>(m * 31 + k));
  const DeviceMatrix device_x(x, 8);
  DeviceCompressed first(m, k), second(m, k);
  for (DeviceCompressed* out : {&first, &second}) {
    require(sm90a::prune_compress(device_x.view(), out->view, nullptr));
    wait_for_device("prune_compress " + std::to_string(m) + "x" + std::to_string(k));
  }
  const std::vector<uint8_t> blocks = between_zones(first.blocks, "blocks");
  const std::vector<uint8_t> scale = between_zones(first.scale, "scale");
  if (blocks != between_zones(second.blocks, "blocks") || scale != between_zones(second.scale, "scale")) {
    return "a second run gave other bits";
  }
  if (device_x.download("x").bits != x.bits) return "x was changed";
  if (std::string text = difference(blocks, test::compress_like_kernel(x)); !text.empty()) return text;
  const std::vector<float> scales = as_floats(scale);
  if (std::string text = difference(scales, test::scales_in_kernel_order(x), "scale of row"); !text.empty()) {
    return text;
  }
  return fill == Fill::kGaussian ? test::check_scales(x, scales) : "";
}

/// One product and what is added to it.
struct SpmmCase {
  int64_t m, n, k;
  Fill fill = Fill::kSmallIntegers;
  int tile = -1;
  bool use_scale = false;
  bool bias = false;
  int64_t rank = 0;
  int64_t images = 0;     ///< rows of a gate; 0 without one
  bool in_place = false;  ///< d is its own residual

  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + " tile " + std::to_string(tile) +
           (fill == Fill::kGaussian ? " gaussian" : " integers") + (use_scale ? " scale" : "") + (bias ? " bias" : "") +
           (rank > 0 ? " rank " + std::to_string(rank) : "") +
           (images > 0 ? " gate of " + std::to_string(images) + (in_place ? " images in place" : " images") : "");
  }
  /// Integers stay exact through every sum, but a scale is no integer: with one, only a product and one sum remain
  /// exact to predict.
  bool exact() const { return fill == Fill::kSmallIntegers && !(use_scale && rank > 0); }
};

/// What d must be: in the kernel's own order of roundings, in fp64, and how far it may be from the latter.
struct Expected {
  uint16_t bits;
  double value;
  double bound;
};

/// What is read beside the activations.
struct Inputs {
  HostMatrix w, bias, down, up, gate, residual;
};

class ExpectedOutput {
 public:
  ExpectedOutput(const SpmmCase& test, const HostMatrix& pruned, std::vector<float> scale, const Inputs& inputs)
      : test_(test), product_(product_in_fp64(pruned, inputs.w)), scale_(std::move(scale)), inputs_(inputs) {
    if (test.rank > 0) low_rank_ = product_in_fp64(inputs.down, inputs.up);
  }

  Expected at(int64_t row, int64_t column) const {
    const auto i = static_cast<std::size_t>(row * test_.n + column);
    const float s = test_.use_scale ? scale_[static_cast<std::size_t>(row)] : 1.0f;
    const double low = test_.rank > 0 ? low_rank_.sum[i] : 0, low_size = test_.rank > 0 ? low_rank_.magnitude[i] : 0;
    const float b = test_.bias ? inputs_.bias.value(0, column) : 0.0f;
    float rounded = static_cast<float>(product_.sum[i]);
    if (test_.use_scale) rounded *= s;
    rounded += static_cast<float>(low);
    rounded += b;
    const double y = s * product_.sum[i] + low + b;
    // The tensor cores cut fp32 sums off once in 32 k (or 16 factors); every cut is at most one unit in 2^23 of the sum
    // of magnitudes. Then three roundings in fp32, and one to bf16's 8 bits.
    const double size = s * product_.magnitude[i] + low_size + std::abs(b);
    const auto cuts = static_cast<double>(test_.k / 32 + test_.rank / 16 + 8);
    const double bound = cuts * 0x1p-23 * size;
    if (test_.images == 0) return {bf16_from_float(rounded), y, bound + 0x1p-8 * std::abs(y)};
    const float gate = inputs_.gate.value(row / (test_.m / test_.images), column);
    const float residual = inputs_.residual.value(row, column);
    const double gated = residual + double{gate} * y;
    return {bf16_from_float(std::fma(gate, rounded, residual)), gated,
            std::abs(gate) * bound + 0x1p-8 * std::abs(gated) + 0x1p-22 * std::abs(residual)};
  }

 private:
  SpmmCase test_;
  Reference product_;
  Reference low_rank_;
  std::vector<float> scale_;
  const Inputs& inputs_;
};

std::string compare(const SpmmCase& test, const HostMatrix& d, const ExpectedOutput& output) {
  for (int64_t row = 0; row < test.m; ++row) {
    for (int64_t column = 0; column < test.n; ++column) {
      const Expected expected = output.at(row, column);
      const bool good = test.exact() ? d.at(row, column) == expected.bits
                                     : std::abs(double{d.value(row, column)} - expected.value) <= expected.bound;
      if (good) continue;
      return "element (" + std::to_string(row) + ", " + std::to_string(column) + ") is " +
             std::to_string(d.value(row, column)) + ", expected " + std::to_string(expected.value);
    }
  }
  return "";
}

std::string check_spmm_case(const SpmmCase& test) {
  const auto seed = static_cast<uint32_t>(test.m + 7 * test.n + 13 * test.k);
  const HostMatrix x = test::make_matrix(test.m, test.k, test.fill, seed);
  const int64_t rank = test.rank > 0 ? test.rank : 8, images = std::max<int64_t>(test.images, 1);
  const Inputs in{
      test::make_matrix(test.n, test.k, test.fill, seed + 1), test::make_matrix(1, test.n, test.fill, seed + 2),
      test::make_matrix(test.m, rank, test.fill, seed + 3),   test::make_matrix(test.n, rank, test.fill, seed + 4),
      test::make_matrix(images, test.n, test.fill, seed + 5), test::make_matrix(test.m, test.n, test.fill, seed + 6)};

  const DeviceMatrix device_x(x), w(in.w, 16), bias(in.bias), down(in.down, 8), up(in.up, 8), gate(in.gate, 8),
      residual(in.residual, 40);
  DeviceCompressed a(test.m, test.k);
  require(sm90a::prune_compress(device_x.view(), a.view, nullptr));
  sm90a::SpmmOptions options;
  options.use_scale = test.use_scale;
  options.tile = test.tile;
  if (test.bias) options.bias = bias.view();
  if (test.rank > 0) {
    options.lora_down = down.view();
    options.lora_up = up.view();
  }
  DeviceMatrix outputs[2] = {{in.residual, 24}, {in.residual, 24}};
  for (DeviceMatrix& d : outputs) {
    if (test.images > 0) {
      options.gate = gate.view();
      options.residual = test.in_place ? d.view() : residual.view();
    }
    require(sm90a::spmm(read_only(a.view), w.view(), d.mutable_view(), options, nullptr));
    wait_for_device("spmm " + test.name());
  }
  HostMatrix d = outputs[0].download("d");
  if (d.bits != outputs[1].download("d").bits) return "a second run gave other bits";
  if (w.download("w").bits != in.w.bits) return "w was changed";
  if (residual.download("residual").bits != in.residual.bits) return "the residual was changed";
  between_zones(a.blocks, "blocks");

  const std::vector<float> scales = as_floats(between_zones(a.scale, "scale"));
  const ExpectedOutput expected(test, test::prune_by_sorting(x), scales, in);
  if (std::string difference = compare(test, d, expected); !difference.empty()) return difference;
  // The comparison itself must see one wrong element, the last one, off by more than the bound at any value.
  const float last = d.value(test.m - 1, test.n - 1);
  d.at(test.m - 1, test.n - 1) = bf16_from_float(last + std::max(1.0f, std::abs(last) / 16));
  return compare(test, d, expected).empty() ? "the comparison missed a planted error" : "";
}

std::vector<SpmmCase> spmm_cases(bool quick) {
  std::vector<SpmmCase> cases;
  for (int tile = -1; tile < sm90a::kSpmmTileCount; ++tile) {
    const auto add = [&](SpmmCase test) {
      test.tile = tile;
      cases.push_back(test);
    };
    // Every remainder of the six k blocks that the main loop takes at a time, and the ring's wrap-around.
    for (const int64_t k_blocks : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13}) add({130, 264, 64 * k_blocks});
    // Edges of m and n: one row, one column group, one past a block, a tile, a cluster tile.
    for (const int64_t m : {1, 63, 64, 65, 128, 129, 257, 385}) add({m, 520, 192});
    for (const int64_t n : {8, 56, 64, 72, 128, 136, 192, 200, 256, 264}) add({100, n, 192});
    add({513, 1064, 448, Fill::kSmallIntegers, -1, false, true, 64});
    for (const int64_t rank : {8, 24, 32, 40, 64, 128})
      add({200, 328, 128, Fill::kSmallIntegers, -1, false, false, rank});
    add({300, 520, 320, Fill::kSmallIntegers, -1, true, true});
    add({300, 520, 320, Fill::kGaussian, -1, true, true, 64});
    for (const auto& [m, n, images] : {std::tuple<int64_t, int64_t, int64_t>{1, 8, 1},
                                       {130, 264, 2},
                                       {129, 200, 3},
                                       {385, 520, 5},
                                       {256, 1064, 256}}) {
      for (const bool in_place : {false, true}) {
        add({m, n, 192, Fill::kSmallIntegers, -1, false, true, 0, images, in_place});
        add({m, n, 448, Fill::kSmallIntegers, -1, true, false, 0, images, in_place});
      }
    }
    add({600, 776, 576, Fill::kGaussian, -1, true, true, 64, 2, false});
    if (quick) continue;
    add({2500, 5000, 64, Fill::kSmallIntegers, -1, false, true, 16, 4, true});
    add({4096, 3072, 1536, Fill::kGaussian, -1, true, true, 64, 1, true});
    add({1000, 1064, 1536, Fill::kSmallIntegers, -1, true, true});
    add({2500, 5000, 64, Fill::kSmallIntegers, -1, false, true, 16});  // many short tiles a CTA
    add({4096, 3072, 3072, Fill::kGaussian, -1, true, true, 64});
    add({1032, 1544, 12288, Fill::kGaussian, -1, true, false, 0});
  }
  return cases;
}

}  // namespace

int run_check(const std::string& name, const std::function<std::string()>& check) {
  std::string failure;
  try {
    failure = check();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  if (failure.empty()) return 0;
  std::printf("FAILED %s: %s\n", name.c_str(), failure.c_str());
  return 1;
}

int verify(bool quick) {
  int failures = 0, count = 0;
  for (const Fill fill : {Fill::kGaussian, Fill::kSmallIntegers, Fill::kAnyBits, Fill::kSpecialGroups}) {
    for (const auto& [m, k] : {std::pair<int64_t, int64_t>{1, 64},
                               {15, 128},
                               {64, 512},
                               {65, 576},
                               {100, 1024},
                               {257, 3072},
                               {128, 26304},
                               {1030, 15360}}) {
      if (quick && m * k > 1000000) continue;
      ++count;
      failures += run_check("prune_compress " + std::to_string(m) + "x" + std::to_string(k),
                            [&, m = m, k = k] { return check_prune(m, k, fill); });
    }
  }
  std::printf("prune_compress: %d matrices checked, %d failed\n", count, failures);
  int spmm_failures = 0;
  const std::vector<SpmmCase> cases = spmm_cases(quick);
  for (const SpmmCase& test : cases) {
    spmm_failures += run_check("spmm " + test.name(), [&] { return check_spmm_case(test); });
    // After a fault of the device every further call fails too.
    if (cudaPeekAtLastError() != cudaSuccess || spmm_failures > 20) break;
  }
  std::printf("spmm: %zu products checked, %d failed\n", cases.size(), spmm_failures);
  std::fflush(stdout);
  return failures + spmm_failures + verify_lora(quick) + verify_outputs(quick) + verify_norm(quick) + verify_fp8(quick);
}

}  // namespace rtlynx::check
