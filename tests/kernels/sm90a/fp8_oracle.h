#pragma once

#include <cstdint>
#include <vector>

#include "oracle.h"

/// What the FP8 kernels must produce, computed on the host.
namespace rtlynx::test {

/// Rows of e4m3 and what they are multiplied by.
struct HostFp8 {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<uint8_t> codes;
  std::vector<float> factor;

  uint8_t& at(int64_t i, int64_t j) { return codes[static_cast<std::size_t>(i * cols + j)]; }
  uint8_t at(int64_t i, int64_t j) const { return codes[static_cast<std::size_t>(i * cols + j)]; }
};

/// Every row scaled by its largest magnitude; factor = amax / 448.
HostFp8 quantize_rows(const HostMatrix& x);

/// quantize_rows with the dropped elements set to +0; factor times s if asked for, s in the order that
/// prune_compress_fp8_config.h promises.
HostFp8 prune_and_quantize(const HostMatrix& x, bool norm_compensation);

/// s of every row in that order.
std::vector<float> fp8_scales_in_kernel_order(const HostMatrix& x);

/// The blocks of layout_fp8.h: which elements are kept is taken from `x`, their codes from `values`.
std::vector<uint8_t> compress_fp8(const HostMatrix& x, const HostFp8& values);

/// The dense codes that wgmma would multiply with, read as the instruction set describes it; rows beyond `rows` left
/// out.
std::vector<uint8_t> read_like_wgmma_fp8(const std::vector<uint8_t>& blocks, int64_t rows, int64_t cols);

/// The codes as bf16, which holds every e4m3 exactly.
HostMatrix widened(const HostFp8& values);

}  // namespace rtlynx::test
