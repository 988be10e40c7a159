// norm_modulate_prune_compress on the GPU: every byte of blocks, scales and dense output against the host, which takes
// the same operations in the same order (held against fp64 in kernels_sm90a_test).
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "../norm_oracle.h"
#include "device_compressed.h"
#include "device_memory.h"
#include "fp64_product.h"
#include "kernels/sm90a/norm_modulate_config.h"
#include "rtlynx/sm90a.h"
#include "verify.h"

namespace rtlynx::check {
namespace {

using test::Fill;
using test::HostMatrix;

struct NormCase {
  int64_t m, k;
  int64_t images = 1;
  bool layer_norm = true;
  bool modulation = true;  ///< scale and shift
  bool weight = false;
  bool dense = false;
  int64_t rank = 0;  ///< of T; 0 without it

  std::string name() const {
    return std::string(layer_norm ? "layer norm " : "RMS norm ") + std::to_string(m) + "x" + std::to_string(k) + ", " +
           std::to_string(images) + " images" + (modulation ? " modulation" : "") + (weight ? " weight" : "") +
           (dense ? " dense" : "") + (rank > 0 ? " rank " + std::to_string(rank) : "");
  }
};

std::string check_norm(const NormCase& test) {
  const auto seed = static_cast<uint32_t>(test.m * 5 + test.k);
  test::NormInputs in;
  in.x = test::make_matrix(test.m, test.k, Fill::kGaussian, seed);
  if (test.weight) in.weight = test::make_matrix(1, test.k, Fill::kGaussian, seed + 1);
  if (test.modulation) {
    in.scale = test::make_matrix(test.images, test.k, Fill::kGaussian, seed + 2);
    in.shift = test::make_matrix(test.images, test.k, Fill::kGaussian, seed + 3);
  }
  in.layer_norm = test.layer_norm;

  const DeviceMatrix x(in.x, 8);
  std::unique_ptr<DeviceMatrix> weight, scale, shift;
  sm90a::NormModulateOptions options;
  options.norm = test.layer_norm ? sm90a::Norm::kLayerNorm : sm90a::Norm::kRmsNorm;
  if (test.weight) {
    weight = std::make_unique<DeviceMatrix>(in.weight);
    options.weight = weight->view();
  }
  if (test.modulation) {
    scale = std::make_unique<DeviceMatrix>(in.scale, 5 * test.k);
    shift = std::make_unique<DeviceMatrix>(in.shift, 5 * test.k);
    options.scale = scale->view();
    options.shift = shift->view();
  }
  const int64_t rank = std::max<int64_t>(test.rank, 8);
  const HostMatrix lora_a = test::make_matrix(rank, test.k, Fill::kGaussian, seed + 4);
  const DeviceMatrix device_lora_a(lora_a);
  DeviceMatrix ts[2] = {{test.m, rank, 8}, {test.m, rank, 8}};
  DeviceMatrix* t = ts;

  DeviceCompressed first(test.m, test.k), second(test.m, test.k);
  DeviceMatrix dense(test.m, test.k, 24);
  for (DeviceCompressed* out : {&first, &second}) {
    if (test.dense) options.dense = dense.mutable_view();
    if (test.rank > 0) options.lora = {device_lora_a.view(), (t++)->mutable_view()};
    require(sm90a::norm_modulate_prune_compress(x.view(), out->view, options, nullptr));
    wait_for_device("norm_modulate_prune_compress " + test.name());
  }
  const int ctas = sm90a::plan_norm_modulate(x.view(), first.view, options).value().ctas;
  const HostMatrix y = test::norm_modulate_in_kernel_order(in, ctas);
  if (test.dense && dense.download("dense").bits != y.bits) return "the dense output differs";
  std::vector<uint8_t> blocks = between_zones(first.blocks, "blocks");
  const std::vector<uint8_t> expected = test::compress_like_kernel(y);
  if (std::string text = difference(blocks, expected); !text.empty()) return text;
  const std::vector<float> scales = as_floats(between_zones(first.scale, "scale"));
  if (std::string text = difference(scales, test::norm_scales_in_kernel_order(y, ctas), "scale of row");
      !text.empty()) {
    return text;
  }
  if (x.download("x").bits != in.x.bits) return "x was changed";
  if (blocks != between_zones(second.blocks, "blocks") ||
      between_zones(first.scale, "scale") != between_zones(second.scale, "scale")) {
    return "a second run gave other bits";
  }
  if (test.rank > 0) {
    const HostMatrix factors = ts[0].download("t");
    if (factors.bits != ts[1].download("t").bits) return "a second run gave another T";
    if (std::string text = difference_of_t(factors, product_in_fp64(y, lora_a), test.k, false); !text.empty()) {
      return text;
    }
  }
  blocks.front() ^= 1;
  return difference(blocks, expected).empty() ? "the comparison missed a planted error" : "";
}

std::vector<NormCase> norm_cases(bool quick) {
  std::vector<NormCase> cases;
  for (const bool layer_norm : {true, false}) {
    for (const int64_t m : {1, 7, 8, 9, 63, 65, 130}) cases.push_back({m, 320, 1, layer_norm});
    for (const int64_t k : {64, 128, 512, 576, 1024, 3072, 3840}) cases.push_back({20, k, 2, layer_norm});
    cases.push_back({60, 256, 20, layer_norm, true, true, true});
    cases.push_back({100, 3072, 5, layer_norm, true, false, true});
    cases.push_back({33, 640, 1, layer_norm, false, true, false});
    cases.push_back({33, 640, 1, layer_norm, false, false, true});
    cases.push_back({9, 12288, 1, layer_norm});
    // Large tiles, several a group: with fewer stages than groups the second wait of a stage passed too early.
    cases.push_back({2100, 12288, 1, layer_norm});
    for (const int64_t rank : {8, 32, 64, 128}) {
      cases.push_back({70, 320, 1, layer_norm, true, false, false, rank});
      cases.push_back({100, 3072, 2, layer_norm, true, false, rank == 8, rank});
    }
    cases.push_back({130, 3840, 1, layer_norm, true, false, false, 64});
    cases.push_back({2100, 448, 1, layer_norm, true, false, false, 64});  // several tiles a group
    cases.push_back({2100, 5632, 1, layer_norm, true, false, false, 64});
    if (quick) continue;
    cases.push_back({4608, 3072, 1, layer_norm, true, false, true});
    cases.push_back({8192, 3072, 1, layer_norm, true, false, false, 64});
  }
  return cases;
}

}  // namespace

int verify_norm(bool quick) {
  int failures = 0;
  const std::vector<NormCase> cases = norm_cases(quick);
  for (const NormCase& test : cases) failures += run_check(test.name(), [&] { return check_norm(test); });
  std::printf("norm_modulate_prune_compress: %zu matrices checked, %d failed\n", cases.size(), failures);
  std::fflush(stdout);
  return failures;
}

}  // namespace rtlynx::check
