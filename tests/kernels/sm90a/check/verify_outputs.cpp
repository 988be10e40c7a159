// Correctness on the GPU of what spmm makes of its sums. Plain spmm and prune_compress, checked in verify.cpp, are the
// reference: GELU is compared element by element with fp64 GELU of plain spmm's output, and compressed output must be,
// byte for byte, what prune_compress makes of the dense output.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "device_compressed.h"
#include "device_memory.h"
#include "kernels/sm90a/spmm_config.h"
#include "rtlynx/sm90a.h"
#include "verify.h"

namespace rtlynx::check {
namespace {

using test::Fill;
using test::HostMatrix;

double gelu_in_fp64(double x) {
  return x / (1.0 + std::exp(-2.0 * std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}

}  // namespace

std::string compare_gelu(const HostMatrix& y, const HostMatrix& g) {
  for (std::size_t i = 0; i < y.bits.size(); ++i) {
    const double x = double{float_from_bf16(y.bits[i])}, got = double{float_from_bf16(g.bits[i])};
    const double expected = gelu_in_fp64(x);
    // Half a unit in the last of bf16's 8 bits, and the 2^-15 that the header promises; below x = -10 zero will do.
    if (std::abs(got - expected) <= (0x1p-8 + 0x1p-14) * std::abs(expected) + 1e-36) continue;
    return "element " + std::to_string(i) + ": gelu(" + std::to_string(x) + ") is " + std::to_string(got) +
           ", expected " + std::to_string(expected);
  }
  return "";
}

namespace {

struct OutputCase {
  int64_t m, n, k;
  int tile;
  bool gelu;
  int64_t k_offset = 0;  ///< of D in the compressed matrix
  int64_t after = 0;     ///< k of that matrix behind D
  int64_t rank = 0;

  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + " tile " + std::to_string(tile) +
           (gelu ? " gelu" : "") + " at k " + std::to_string(k_offset) + " of " + std::to_string(k_offset + n + after) +
           (rank > 0 ? " rank " + std::to_string(rank) : "");
  }
};

/// The sums of squares that spmm_compress documents, over what it found there.
std::vector<float> squares_in_kernel_order(const OutputCase& test, const HostMatrix& d, std::vector<float> squares) {
  const HostMatrix pruned = test::prune_by_sorting(d);
  const int columns = sm90a::kSpmmTiles[test.tile].columns;
  const auto at = [&](int64_t part, int64_t row) {
    return static_cast<std::size_t>(2 * ((test.k_offset / 128 + part) * test.m + row));
  };
  for (int64_t part = 0; part < (test.n + 127) / 128; ++part) {
    for (int64_t row = 0; row < test.m; ++row) squares[at(part, row)] = squares[at(part, row) + 1] = 0.0f;
  }
  for (int64_t first = 0; first < test.n; first += columns) {
    const int64_t past = std::min(first + columns, test.n);
    for (int64_t row = 0; row < test.m; ++row) {
      float all[4] = {}, kept[4] = {};
      for (int64_t j = first; j < past; ++j) {
        const auto lane = static_cast<std::size_t>(j / 16 % 4);
        all[lane] = std::fma(d.value(row, j), d.value(row, j), all[lane]);
        kept[lane] = std::fma(pruned.value(row, j), pruned.value(row, j), kept[lane]);
      }
      squares[at(first / 128, row)] = (all[0] + all[1]) + (all[2] + all[3]);
      squares[at(first / 128, row) + 1] = (kept[0] + kept[1]) + (kept[2] + kept[3]);
    }
  }
  return squares;
}

std::vector<float> scales_from_squares(const std::vector<float>& squares, int64_t m) {
  std::vector<float> scales(static_cast<std::size_t>(m));
  const std::size_t rows = scales.size(), parts = squares.size() / (2 * rows);
  for (std::size_t row = 0; row < rows; ++row) {
    float sums[8][2] = {};
    for (std::size_t part = 0; part < parts; ++part) {
      for (std::size_t i = 0; i < 2; ++i) sums[part % 8][i] += squares[2 * (part * rows + row) + i];
    }
    for (std::size_t i = 1; i < 8; ++i) {
      sums[0][0] += sums[i][0];
      sums[0][1] += sums[i][1];
    }
    scales[row] = std::sqrt(sums[0][0] / (sums[0][1] + 1e-8f));
  }
  return scales;
}

/// What blocks of a wider matrix must be when `part` was written to its k_offset and the rest was left alone.
std::vector<uint8_t> placed(const std::vector<uint8_t>& part, int64_t width, int64_t k_offset,
                            std::vector<uint8_t> whole, int64_t k) {
  const int64_t row_bytes = width / 64 * 4608, rows = static_cast<int64_t>(part.size()) / row_bytes;
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(part.begin() + row * row_bytes, row_bytes, whole.begin() + (row * (k / 64) + k_offset / 64) * 4608);
  }
  return whole;
}

std::vector<uint8_t> poison(std::size_t bytes) {
  return std::vector<uint8_t>(bytes, DeviceBytes::kPoison);
}

std::string check_output(const OutputCase& test) {
  const auto seed = static_cast<uint32_t>(test.m + 3 * test.n + 17 * test.k);
  const HostMatrix x = test::make_matrix(test.m, test.k, Fill::kGaussian, seed);
  const DeviceMatrix device_x(x), w(test::make_matrix(test.n, test.k, Fill::kGaussian, seed + 1)),
      bias(test::make_matrix(1, test.n, Fill::kGaussian, seed + 2)),
      down(test::make_matrix(test.m, 64, Fill::kGaussian, seed + 3)),
      up(test::make_matrix(test.n, 64, Fill::kGaussian, seed + 4));
  DeviceCompressed a(test.m, test.k);
  require(sm90a::prune_compress(device_x.view(), a.view, nullptr));
  sm90a::SpmmOptions options{.bias = bias.view(), .tile = test.tile};
  if (test.rank > 0) {
    options.lora_down = down.view();
    options.lora_up = up.view();
  }
  DeviceMatrix d(test.m, test.n, 8);
  require(sm90a::spmm(read_only(a.view), w.view(), d.mutable_view(), options, nullptr));
  wait_for_device("spmm " + test.name());
  if (test.gelu) {
    const HostMatrix y = d.download("d");
    options.activation = sm90a::Activation::kGeluTanh;
    require(sm90a::spmm(read_only(a.view), w.view(), d.mutable_view(), options, nullptr));
    wait_for_device("spmm with GELU " + test.name());
    HostMatrix g = d.download("d");
    if (std::string text = compare_gelu(y, g); !text.empty()) return text;
    const std::size_t last = g.bits.size() - 1;
    g.bits[last] = bf16_from_float(float_from_bf16(g.bits[last]) * 1.02f + 1e-3f);
    if (compare_gelu(y, g).empty()) return "the comparison of GELU missed a planted error";
  }
  DeviceCompressed expected(test.m, test.n);
  require(sm90a::prune_compress(d.view(), expected.view, nullptr));

  const int64_t k = test.k_offset + test.n + test.after;
  DeviceCompressed first(test.m, k), second(test.m, k);
  for (DeviceCompressed* out : {&first, &second}) {
    require(sm90a::spmm_compress(read_only(a.view), w.view(), out->slice(test.k_offset), options, nullptr));
    wait_for_device("spmm_compress " + test.name());
    require(sm90a::finish_scale(out->view, static_cast<const float*>(out->squares.data()), nullptr));
    wait_for_device("finish_scale " + test.name());
  }
  std::vector<uint8_t> blocks = between_zones(first.blocks, "blocks");
  const std::vector<uint8_t> wanted =
      placed(between_zones(expected.blocks, "blocks"), test.n, test.k_offset, poison(blocks.size()), k);
  if (std::string text = difference(blocks, wanted); !text.empty()) return text;
  const std::vector<float> squares = as_floats(between_zones(first.squares, "squares"));
  const std::vector<float> in_order =
      squares_in_kernel_order(test, d.download("d"), as_floats(poison(first.squares.size())));
  if (std::string text = difference(squares, in_order, "square"); !text.empty()) return text;
  const std::vector<float> scales = as_floats(between_zones(first.scale, "scale"));
  if (std::string text = difference(scales, scales_from_squares(squares, test.m), "scale of row"); !text.empty()) {
    return text;
  }
  if (blocks != between_zones(second.blocks, "blocks") ||
      between_zones(first.squares, "squares") != between_zones(second.squares, "squares")) {
    return "a second run gave other bits";
  }
  blocks.back() ^= 1;
  return difference(blocks, wanted).empty() ? "the comparison missed a planted error" : "";
}

/// Two slices side by side are the compressed matrix of both.
std::string check_slices(int64_t m, int64_t left, int64_t right) {
  const HostMatrix x = test::make_matrix(m, left + right, Fill::kGaussian, static_cast<uint32_t>(m + left));
  const DeviceMatrix device_x(x, 8);
  DeviceCompressed whole(m, left + right), parts(m, left + right);
  require(sm90a::prune_compress(device_x.view(), whole.view, nullptr));
  MatrixView view = device_x.view();
  view.cols = left;
  require(sm90a::prune_compress_slice(view, parts.slice(0), nullptr));
  view.data = device_x.data() + left;
  view.cols = right;
  require(sm90a::prune_compress_slice(view, parts.slice(left), nullptr));
  require(sm90a::finish_scale(parts.view, static_cast<const float*>(parts.squares.data()), nullptr));
  wait_for_device("prune_compress_slice");
  if (std::string text = difference(between_zones(parts.blocks, "blocks"), between_zones(whole.blocks, "blocks"));
      !text.empty()) {
    return text;
  }
  const std::vector<float> squares = as_floats(between_zones(parts.squares, "squares"));
  const std::vector<float> scales = as_floats(between_zones(parts.scale, "scale"));
  if (std::string text = difference(scales, scales_from_squares(squares, m), "scale of row"); !text.empty()) {
    return text;
  }
  return test::check_scales(x, scales);
}

std::vector<OutputCase> output_cases(bool quick) {
  std::vector<OutputCase> cases;
  for (int tile = 0; tile < sm90a::kSpmmTileCount; ++tile) {
    for (const bool gelu : {false, true}) {
      for (const int64_t m : {1, 63, 65, 129, 200, 385}) cases.push_back({m, 576, 192, tile, gelu});
      for (const int64_t n : {64, 128, 192, 256, 320, 448}) cases.push_back({100, n, 64, tile, gelu});
      cases.push_back({300, 448, 256, tile, gelu, 384, 0});
      cases.push_back({130, 320, 128, tile, gelu, 128, 192, 64});
      cases.push_back({1500, 2624, 64, tile, gelu});  // several short tiles a CTA: the strips' barriers turn over
      if (quick) continue;
      cases.push_back({4096, 3072, 3072, tile, gelu, 3072, 0, 64});
      cases.push_back({2500, 5056, 64, tile, gelu});
    }
  }
  return cases;
}

}  // namespace

int verify_outputs(bool quick) {
  int failures = 0, count = 0;
  const std::vector<OutputCase> cases = output_cases(quick);
  for (const OutputCase& test : cases) {
    failures += run_check("spmm_compress " + test.name(), [&] { return check_output(test); });
    if (cudaPeekAtLastError() != cudaSuccess || failures > 20) break;
  }
  std::printf("spmm_compress: %zu products checked, %d failed\n", cases.size(), failures);
  int slice_failures = 0;
  for (const auto& [m, left, right] :
       {std::tuple<int64_t, int64_t, int64_t>{1, 128, 64}, {65, 128, 1024}, {100, 3072, 1216}, {257, 640, 640}}) {
    ++count;
    slice_failures += run_check("prune_compress_slice " + std::to_string(m) + "x" + std::to_string(left),
                                [&, m = m, left = left, right = right] { return check_slices(m, left, right); });
  }
  std::printf("prune_compress_slice: %d matrices checked, %d failed\n", count, slice_failures);
  std::fflush(stdout);
  return failures + slice_failures;
}

}  // namespace rtlynx::check
