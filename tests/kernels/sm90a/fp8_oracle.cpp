#include "fp8_oracle.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/sm90a/fp8.h"
#include "kernels/sm90a/layout_fp8.h"
#include "kernels/sm90a/prune_compress_fp8_config.h"
#include "kernels/sm90a/select24.h"

namespace rtlynx::test {
namespace {

/// Which two of four are kept.
uint32_t nibble_of(const uint16_t* group) {
  uint32_t words[2];
  std::memcpy(words, group, 8);
  return sm90a::select24(words[0], words[1]).metadata;
}

/// v[l] += v[l ^ 1], v[l ^ 2], .. v[l ^ 16]; all become the same.
float add_lanes(float (&v)[32]) {
  for (int distance = 1; distance < 32; distance *= 2) {
    float next[32];
    for (int lane = 0; lane < 32; ++lane) next[lane] = v[lane] + v[lane ^ distance];
    std::copy(std::begin(next), std::end(next), std::begin(v));
  }
  return v[0];
}

float row_sum(const HostMatrix& x, int64_t row) {
  const int warps = sm90a::fp8_warps_per_row(x.cols);
  float total = 0;
  for (int warp = 0; warp < warps; ++warp) {
    float lanes[32] = {};
    for (int64_t k = 0; k < x.cols; ++k) {
      const int64_t in_round = k / 16 % (32 * warps);
      if (in_round / 32 != warp) continue;
      float& sum = lanes[in_round % 32];
      sum = std::fma(x.value(row, k), x.value(row, k), sum);
    }
    const float sum = add_lanes(lanes);
    total = warp == 0 ? sum : total + sum;
  }
  return total;
}

}  // namespace

HostFp8 quantize_rows(const HostMatrix& x) {
  HostFp8 out{x.rows, x.cols, std::vector<uint8_t>(x.bits.size()),
              std::vector<float>(static_cast<std::size_t>(x.rows))};
  for (int64_t row = 0; row < x.rows; ++row) {
    uint16_t largest = 0;
    for (int64_t k = 0; k < x.cols; ++k) largest = std::max(largest, static_cast<uint16_t>(x.at(row, k) & 0x7fff));
    const sm90a::RowScale scale = sm90a::row_scale(float_from_bf16(largest));
    out.factor[static_cast<std::size_t>(row)] = scale.scale;
    for (int64_t k = 0; k < x.cols; ++k) out.at(row, k) = sm90a::e4m3_from_float(x.value(row, k) * scale.inverse);
  }
  return out;
}

std::vector<float> fp8_scales_in_kernel_order(const HostMatrix& x) {
  const HostMatrix pruned = prune_by_sorting(x);
  std::vector<float> scales(static_cast<std::size_t>(x.rows));
  for (int64_t row = 0; row < x.rows; ++row) {
    scales[static_cast<std::size_t>(row)] = std::sqrt(row_sum(x, row) / (row_sum(pruned, row) + 1e-8f));
  }
  return scales;
}

HostFp8 prune_and_quantize(const HostMatrix& x, bool norm_compensation) {
  HostFp8 out = quantize_rows(x);
  for (std::size_t i = 0; i < x.bits.size(); i += 4) {
    const uint32_t nibble = nibble_of(&x.bits[i]);
    for (uint32_t j = 0; j < 4; ++j) {
      if (j != (nibble & 3) && j != nibble >> 2) out.codes[i + j] = 0;
    }
  }
  if (!norm_compensation) return out;
  const std::vector<float> scales = fp8_scales_in_kernel_order(x);
  for (std::size_t row = 0; row < scales.size(); ++row) out.factor[row] = scales[row] * out.factor[row];
  return out;
}

std::vector<uint8_t> compress_fp8(const HostMatrix& x, const HostFp8& values) {
  using namespace sm90a;
  const int64_t k_blocks = x.cols / kFp8BlockK, rows = (x.rows + kBlockRows - 1) / kBlockRows * kBlockRows;
  std::vector<uint8_t> blocks(static_cast<std::size_t>(rows * k_blocks * 80), 0xee);
  for (int64_t row = 0; row < rows; ++row) {
    const int in_block = static_cast<int>(row % kBlockRows);
    for (int64_t unit = 0; unit < x.cols / 32; ++unit) {
      uint8_t* block = blocks.data() + fp8_block_offset(row / kBlockRows, unit / 4, k_blocks);
      uint8_t* kept = block + value_offset(in_block, static_cast<int>(unit % 4));
      uint32_t metadata = 0;
      for (int64_t group = 0; group < 8; ++group) {
        const int64_t k = 32 * unit + 4 * group;
        constexpr uint16_t kZeros[4] = {};
        const uint32_t nibble = nibble_of(row < x.rows ? &x.bits[static_cast<std::size_t>(row * x.cols + k)] : kZeros);
        metadata |= nibble << (4 * group);
        for (const uint32_t index : {nibble & 3, nibble >> 2}) *kept++ = row < x.rows ? values.at(row, k + index) : 0;
      }
      std::memcpy(block + fp8_metadata_offset(in_block, static_cast<int>(unit % 4)), &metadata, 4);
    }
  }
  return blocks;
}

std::vector<uint8_t> read_like_wgmma_fp8(const std::vector<uint8_t>& blocks, int64_t rows, int64_t cols) {
  std::vector<uint8_t> out(static_cast<std::size_t>(rows * cols), 0);
  for (int64_t first_row = 0; first_row < rows; first_row += 64) {
    for (int64_t first_k = 0; first_k < cols; first_k += 128) {
      const uint8_t* block = blocks.data() + (first_row / 64 * (cols / 128) + first_k / 128) * 5120;
      for (unsigned step = 0; step < 2; ++step) {
        for (unsigned lane = 0; lane < 128; ++lane) {
          uint32_t word;
          std::memcpy(&word, block + sm90a::fp8_metadata_of_lane(static_cast<int>(lane)) + 4 * step, 4);
          // The instruction's map of a thread to (row, first k), for m64nNk64 of 8-bit elements: bit 0 of the thread
          // chooses the row's half, bit 1 the k's, bits 2-4 the row, bits 5-6 the warp's 16 rows.
          const unsigned row = 8 * (lane & 1) + (lane >> 2 & 7) + 16 * (lane >> 5), first = 32 * (lane >> 1 & 1);
          if (first_row + row >= rows) continue;
          for (unsigned group = 0; group < 8; ++group) {
            for (unsigned slot = 0; slot < 2; ++slot) {
              // 64 k of the step are 32 bytes of a row of 64, swizzled by 64 bytes.
              const unsigned linear = 64 * row + 32 * step + first / 2 + 2 * group + slot;
              const unsigned k = 64 * step + first + 4 * group + (word >> (4 * group + 2 * slot) & 3);
              out[static_cast<std::size_t>((first_row + row) * cols + first_k + k)] =
                  block[linear ^ ((linear >> 3) & 0x30)];
            }
          }
        }
      }
    }
  }
  return out;
}

HostMatrix widened(const HostFp8& values) {
  HostMatrix out{values.rows, values.cols, std::vector<uint16_t>(values.codes.size())};
  for (std::size_t i = 0; i < values.codes.size(); ++i) {
    out.bits[i] = bf16_from_float(sm90a::float_from_e4m3(values.codes[i]));
  }
  return out;
}

}  // namespace rtlynx::test
