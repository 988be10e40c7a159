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

#include "device_memory.h"
#include "kernels/sm90a/spmm_config.h"
#include "reference.h"
#include "rtlynx/sm90a.h"

namespace rtlynx::check {
namespace {

using test::Fill;
using test::HostMatrix;

/// Activations compressed on the device, with zones around blocks and scales.
struct DeviceCompressed {
  DeviceCompressed(int64_t m, int64_t k)
      : blocks(static_cast<std::size_t>(sm90a::compressed_bytes(m, k).value())),
        scale(static_cast<std::size_t>(m) * 4),
        view{blocks.data(), static_cast<float*>(scale.data()), m, k} {}
  DeviceBytes blocks;
  DeviceBytes scale;
  sm90a::MutableCompressedView view;
};

/// The bytes between the zones; throws if a zone was written.
std::vector<uint8_t> between_zones(const DeviceBytes& bytes, const char* name) {
  const std::vector<uint8_t> all = bytes.download_all();
  constexpr std::size_t kZone = DeviceBytes::kZone;
  for (std::size_t i = 0; i < kZone; ++i) {
    if (all[i] != DeviceBytes::kPoison || all[all.size() - 1 - i] != DeviceBytes::kPoison) {
      throw std::runtime_error(std::string(name) + ": a red zone was written");
    }
  }
  return {all.begin() + kZone, all.end() - kZone};
}

std::vector<float> as_floats(const std::vector<uint8_t>& bytes) {
  std::vector<float> floats(bytes.size() / 4);
  std::memcpy(floats.data(), bytes.data(), bytes.size());
  return floats;
}

/// Equal bits, or both NaN: the payload of a computed NaN is the hardware's business.
bool same(float a, float b) {
  return std::memcmp(&a, &b, 4) == 0 || (std::isnan(a) && std::isnan(b));
}

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
  const std::vector<uint8_t> expected = test::compress_like_kernel(x);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (blocks[i] == expected[i]) continue;
    return "block " + std::to_string(i / sm90a::kBlockBytes) + " byte " + std::to_string(i % sm90a::kBlockBytes) +
           " is " + std::to_string(blocks[i]) + ", expected " + std::to_string(expected[i]);
  }
  const std::vector<float> scales = as_floats(scale), promised = test::scales_in_kernel_order(x);
  for (std::size_t row = 0; row < scales.size(); ++row) {
    if (!same(scales[row], promised[row])) {
      return "scale of row " + std::to_string(row) + " is " + std::to_string(scales[row]) +
             ", the documented order gives " + std::to_string(promised[row]);
    }
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

  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + " tile " + std::to_string(tile) +
           (fill == Fill::kGaussian ? " gaussian" : " integers") + (use_scale ? " scale" : "") + (bias ? " bias" : "") +
           (rank > 0 ? " rank " + std::to_string(rank) : "");
  }
  /// Integers stay exact through every sum, but a scale is no integer: with one, only a product and one sum remain
  /// exact to predict.
  bool exact() const { return fill == Fill::kSmallIntegers && !(use_scale && rank > 0); }
};

struct Reference {
  std::vector<double> sum;
  std::vector<double> magnitude;
};

Reference product_in_fp64(const HostMatrix& x, const HostMatrix& w) {
  const DeviceMatrix device_x(x), device_w(w);
  const auto count = static_cast<std::size_t>(x.rows * w.rows);
  const DeviceBytes sum(count * 8), magnitude(count * 8);
  reference_product(device_x.data(), device_w.data(), static_cast<int>(x.rows), static_cast<int>(w.rows),
                    static_cast<int>(x.cols), static_cast<double*>(sum.data()), static_cast<double*>(magnitude.data()));
  wait_for_device("reference product");
  Reference out{std::vector<double>(count), std::vector<double>(count)};
  require(cudaMemcpy(out.sum.data(), sum.data(), count * 8, cudaMemcpyDeviceToHost), "download");
  require(cudaMemcpy(out.magnitude.data(), magnitude.data(), count * 8, cudaMemcpyDeviceToHost), "download");
  return out;
}

/// What d must be: in the kernel's own order of roundings, in fp64, and how far it may be from the latter.
struct Expected {
  uint16_t bits;
  double value;
  double bound;
};

class ExpectedOutput {
 public:
  ExpectedOutput(const SpmmCase& test, const HostMatrix& pruned, const HostMatrix& w, std::vector<float> scale,
                 const HostMatrix& bias, const HostMatrix& down, const HostMatrix& up)
      : test_(test), product_(product_in_fp64(pruned, w)), scale_(std::move(scale)), bias_(bias) {
    if (test.rank > 0) low_rank_ = product_in_fp64(down, up);
  }

  Expected at(int64_t row, int64_t column) const {
    const auto i = static_cast<std::size_t>(row * test_.n + column);
    const float s = test_.use_scale ? scale_[static_cast<std::size_t>(row)] : 1.0f;
    const double low = test_.rank > 0 ? low_rank_.sum[i] : 0, low_size = test_.rank > 0 ? low_rank_.magnitude[i] : 0;
    const float b = test_.bias ? bias_.value(0, column) : 0.0f;
    float rounded = static_cast<float>(product_.sum[i]);
    if (test_.use_scale) rounded *= s;
    rounded += static_cast<float>(low);
    rounded += b;
    Expected expected{bf16_from_float(rounded), s * product_.sum[i] + low + b, 0};
    // The tensor cores cut fp32 sums off once in 32 k (or 16 factors); every cut is at most one unit in 2^23 of the sum
    // of magnitudes. Then three roundings in fp32, and one to bf16's 8 bits.
    const double size = s * product_.magnitude[i] + low_size + std::abs(b);
    const auto cuts = static_cast<double>(test_.k / 32 + test_.rank / 16 + 8);
    expected.bound = cuts * 0x1p-23 * size + 0x1p-8 * std::abs(expected.value);
    return expected;
  }

 private:
  SpmmCase test_;
  Reference product_;
  Reference low_rank_;
  std::vector<float> scale_;
  HostMatrix bias_;
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
  const HostMatrix w = test::make_matrix(test.n, test.k, test.fill, seed + 1);
  const HostMatrix bias = test::make_matrix(1, test.n, test.fill, seed + 2);
  const int64_t rank = test.rank > 0 ? test.rank : 8;
  const HostMatrix down = test::make_matrix(test.m, rank, test.fill, seed + 3);
  const HostMatrix up = test::make_matrix(test.n, rank, test.fill, seed + 4);

  const DeviceMatrix device_x(x), device_w(w, 16), device_bias(bias), device_down(down, 8), device_up(up, 8);
  DeviceCompressed a(test.m, test.k);
  require(sm90a::prune_compress(device_x.view(), a.view, nullptr));
  sm90a::SpmmOptions options;
  options.use_scale = test.use_scale;
  options.tile = test.tile;
  if (test.bias) options.bias = device_bias.view();
  if (test.rank > 0) {
    options.lora_down = device_down.view();
    options.lora_up = device_up.view();
  }
  DeviceMatrix first(test.m, test.n, 24), second(test.m, test.n, 24);
  for (DeviceMatrix* d : {&first, &second}) {
    require(sm90a::spmm(read_only(a.view), device_w.view(), d->mutable_view(), options, nullptr));
    wait_for_device("spmm " + test.name());
  }
  HostMatrix d = first.download("d");
  if (d.bits != second.download("d").bits) return "a second run gave other bits";
  if (device_w.download("w").bits != w.bits) return "w was changed";
  between_zones(a.blocks, "blocks");

  const std::vector<float> scales = as_floats(between_zones(a.scale, "scale"));
  const ExpectedOutput expected(test, test::prune_by_sorting(x), w, scales, bias, down, up);
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
    if (quick) continue;
    add({1000, 1064, 1536, Fill::kSmallIntegers, -1, true, true});
    add({2500, 5000, 64, Fill::kSmallIntegers, -1, false, true, 16});  // many short tiles a CTA
    add({4096, 3072, 3072, Fill::kGaussian, -1, true, true, 64});
    add({1032, 1544, 12288, Fill::kGaussian, -1, true, false, 0});
  }
  return cases;
}

/// Runs one check, turns exceptions into failures, prints what failed; returns the number of failures.
int run(const std::string& name, const std::function<std::string()>& check) {
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

}  // namespace

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
      failures += run("prune_compress " + std::to_string(m) + "x" + std::to_string(k),
                      [&, m = m, k = k] { return check_prune(m, k, fill); });
    }
  }
  std::printf("prune_compress: %d matrices checked, %d failed\n", count, failures);
  int spmm_failures = 0;
  const std::vector<SpmmCase> cases = spmm_cases(quick);
  for (const SpmmCase& test : cases) {
    spmm_failures += run("spmm " + test.name(), [&] { return check_spmm_case(test); });
    // After a fault of the device every further call fails too.
    if (cudaPeekAtLastError() != cudaSuccess || spmm_failures > 20) break;
  }
  std::printf("spmm: %zu products checked, %d failed\n", cases.size(), spmm_failures);
  std::fflush(stdout);
  return failures + spmm_failures;
}

}  // namespace rtlynx::check
