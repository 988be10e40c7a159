#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/bf16.h"

/// What the Hopper kernels must produce, computed on the host; shared by the tests that need no GPU and by sm90a_check.
namespace rtlynx::test {

/// A dense bf16 matrix on the host, rows packed.
struct HostMatrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<uint16_t> bits;

  uint16_t& at(int64_t i, int64_t j) { return bits[static_cast<std::size_t>(i * cols + j)]; }
  uint16_t at(int64_t i, int64_t j) const { return bits[static_cast<std::size_t>(i * cols + j)]; }
  float value(int64_t i, int64_t j) const { return float_from_bf16(at(i, j)); }
};

enum class Fill {
  kGaussian,
  kSmallIntegers,  ///< -2..2: sums stay exact in fp32
  kAnyBits,        ///< every bit pattern: NaN, Inf, denormals
  kSpecialGroups,  ///< the 6,561 groups over {-2, -1, -0, 0, 1, 2, NaN, Inf, denormal}, one after the other
};
HostMatrix make_matrix(int64_t rows, int64_t cols, Fill fill, uint32_t seed);

/// X~ by the definition, with a stable sort of every group of 4: dropped elements are +0.
HostMatrix prune_by_sorting(const HostMatrix& x);

/// The blocks of layout.h, made by walking warps and lanes as the kernel does, with the kernel's own select and pack.
std::vector<uint8_t> compress_like_kernel(const HostMatrix& x);

/// s of every row in the order that prune_compress_config.h promises, and in fp64.
std::vector<float> scales_in_kernel_order(const HostMatrix& x);
std::vector<double> scales_exact(const HostMatrix& x);

/// |s - exact| / exact that the documented orders allow at most.
double scale_bound(int64_t k);

/// The first row whose scale breaks the bound against fp64, described; "" if none. Rows with Inf or NaN are left out.
std::string check_scales(const HostMatrix& x, const std::vector<float>& scales);

}  // namespace rtlynx::test
