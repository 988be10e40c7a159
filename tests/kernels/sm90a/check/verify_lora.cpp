// prune_compress_lora on the GPU: blocks and scale must be prune_compress's, byte for byte, and T = X L_A must be
// within rounding of fp64's, exact for integers.
#include <algorithm>
#include <cstdio>
#include <string>

#include "device_compressed.h"
#include "device_memory.h"
#include "fp64_product.h"
#include "verify.h"

namespace rtlynx::check {
namespace {

using test::Fill;
using test::HostMatrix;

struct LoraCase {
  int64_t m, k, rank;
  Fill fill = Fill::kGaussian;

  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(k) + " rank " + std::to_string(rank) +
           (fill == Fill::kGaussian ? " gaussian" : " integers");
  }
};

std::string check_lora(const LoraCase& test) {
  const auto seed = static_cast<uint32_t>(test.m * 11 + test.k + test.rank);
  const HostMatrix x = test::make_matrix(test.m, test.k, test.fill, seed);
  const HostMatrix lora_a = test::make_matrix(test.rank, test.k, test.fill, seed + 1);
  const DeviceMatrix device_x(x, 8), device_lora_a(lora_a, 16);
  DeviceCompressed first(test.m, test.k), second(test.m, test.k), plain(test.m, test.k);
  DeviceMatrix t(test.m, test.rank, 8), again(test.m, test.rank);
  require(sm90a::prune_compress_lora(device_x.view(), first.view, {device_lora_a.view(), t.mutable_view()}, nullptr));
  wait_for_device("prune_compress_lora " + test.name());
  require(
      sm90a::prune_compress_lora(device_x.view(), second.view, {device_lora_a.view(), again.mutable_view()}, nullptr));
  wait_for_device("prune_compress_lora again " + test.name());
  require(sm90a::prune_compress(device_x.view(), plain.view, nullptr));
  wait_for_device("prune_compress " + test.name());

  std::vector<uint8_t> blocks = between_zones(first.blocks, "blocks");
  const std::vector<uint8_t> expected = between_zones(plain.blocks, "blocks");
  if (std::string text = difference(blocks, expected); !text.empty()) return text;
  const std::vector<float> scales = as_floats(between_zones(first.scale, "scale"));
  if (std::string text = difference(scales, as_floats(between_zones(plain.scale, "scale")), "scale of row");
      !text.empty()) {
    return text;
  }
  HostMatrix factors = t.download("t");
  if (blocks != between_zones(second.blocks, "blocks") || factors.bits != again.download("t").bits ||
      between_zones(first.scale, "scale") != between_zones(second.scale, "scale")) {
    return "a second run gave other bits";
  }
  if (device_x.download("x").bits != x.bits) return "x was changed";
  const Reference product = product_in_fp64(x, lora_a);
  const bool exact = test.fill == Fill::kSmallIntegers;
  if (std::string text = difference_of_t(factors, product, test.k, exact); !text.empty()) return text;
  const float last = factors.value(test.m - 1, test.rank - 1);
  factors.at(test.m - 1, test.rank - 1) = bf16_from_float(last + std::max(1.0f, std::abs(last) / 16));
  return difference_of_t(factors, product, test.k, exact).empty() ? "the comparison missed a planted error" : "";
}

std::vector<LoraCase> lora_cases(bool quick) {
  std::vector<LoraCase> cases;
  for (const Fill fill : {Fill::kGaussian, Fill::kSmallIntegers}) {
    // Fewer k than classes, whole rounds of classes, remainders; the ring turns over from k = 3072 on.
    for (const int64_t k : {64, 128, 192, 448, 512, 576, 1024, 3072, 3840}) cases.push_back({100, k, 64, fill});
    for (const int64_t m : {1, 15, 63, 64, 65, 129, 257}) cases.push_back({m, 320, 64, fill});
    for (const int64_t rank : {8, 16, 24, 32, 40, 64, 72, 128}) {
      cases.push_back({70, 192, rank, fill});
      cases.push_back({130, 2112, rank, fill});
    }
    if (quick) continue;
    for (const int64_t rank : {16, 64, 128}) cases.push_back({1030, 15360, rank, fill});
    cases.push_back({9000, 3072, 64, fill});  // more clusters than run at once
  }
  return cases;
}

}  // namespace

int verify_lora(bool quick) {
  int failures = 0;
  const std::vector<LoraCase> cases = lora_cases(quick);
  for (const LoraCase& test : cases) {
    failures += run_check("prune_compress_lora " + test.name(), [&] { return check_lora(test); });
    if (cudaPeekAtLastError() != cudaSuccess || failures > 20) break;
  }
  std::printf("prune_compress_lora: %zu matrices checked, %d failed\n", cases.size(), failures);
  std::fflush(stdout);
  return failures;
}

}  // namespace rtlynx::check
