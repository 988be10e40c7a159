// The kernels' selection, packing and layout, run on the host and held against independent descriptions.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/select24.h"
#include "oracle.h"
#include "rtlynx/sm90a.h"
#include "rtlynx/sparse24.h"

namespace rtlynx::test {
namespace {

/// The dense matrix that wgmma would multiply with, read as the instruction set describes it: values through the
/// 64-byte swizzle (bits 4-5 of the offset exchanged with bits 7-8 by exclusive or), metadata by lane and sparsity
/// selector.
HostMatrix read_like_wgmma(const std::vector<uint8_t>& blocks, int64_t rows, int64_t cols) {
  HostMatrix out{rows, cols, std::vector<uint16_t>(static_cast<std::size_t>(rows * cols), 0)};
  for (int64_t first_row = 0; first_row < rows; first_row += 64) {
    for (int64_t first_k = 0; first_k < cols; first_k += 64) {
      const uint8_t* block = blocks.data() + (first_row / 64 * (cols / 64) + first_k / 64) * 4608;
      for (unsigned lane = 0; lane < 128; ++lane) {
        uint32_t word;
        std::memcpy(&word, block + 4096 + 4 * lane, 4);
        // Selector 0 reads lanes 0 and 1 of each quad, for k 0..31 of the block; selector 1 lanes 2 and 3, for 32..63.
        const unsigned selector = lane % 4 / 2, half_k = lane % 2;
        for (unsigned bit = 0; bit < 32; bit += 4) {
          const unsigned row = 16 * (lane / 32) + lane % 32 / 4 + (bit >= 16 ? 8 : 0);
          const unsigned group_k = 32 * selector + 16 * half_k + bit % 16;
          for (unsigned slot = 0; slot < 2; ++slot) {
            // The kept values of 4 k are 2 columns of the stored matrix; a row of 64 k takes 64 bytes.
            const unsigned linear = 64 * row + 2 * (group_k / 2 + slot);
            const unsigned swizzled = linear ^ ((linear >> 3) & 0x30);
            uint16_t value;
            std::memcpy(&value, block + swizzled, 2);
            const unsigned k = group_k + ((word >> (bit + 2 * slot)) & 3);
            if (first_row + row < rows) out.at(first_row + row, first_k + k) = value;
          }
        }
      }
    }
  }
  return out;
}

HostMatrix decompressed(const std::vector<uint8_t>& blocks, int64_t rows, int64_t cols) {
  HostMatrix out{rows, cols, std::vector<uint16_t>(static_cast<std::size_t>(rows * cols), 0xeeee)};
  const Status status = sm90a::decompress_on_host(blocks.data(), {out.bits.data(), rows, cols, cols, DType::kBF16});
  EXPECT_TRUE(status.ok()) << status.to_string();
  return out;
}

TEST(Sm90aSelect, EveryGroupOfSpecialValues) {
  const HostMatrix x = make_matrix(1, 4 * 6561, Fill::kSpecialGroups, 0);
  const HostMatrix expected = prune_by_sorting(x);
  for (std::size_t i = 0; i < x.bits.size(); i += 4) {
    uint32_t words[2];
    std::memcpy(words, &x.bits[i], 8);
    const sm90a::KeptPair kept = sm90a::select24(words[0], words[1]);
    const unsigned first = kept.metadata & 3, second = kept.metadata >> 2;
    ASSERT_LT(first, second);
    ASSERT_LT(second, 4u);
    uint16_t group[4] = {};
    group[first] = static_cast<uint16_t>(kept.values);
    group[second] = static_cast<uint16_t>(kept.values >> 16);
    ASSERT_EQ(std::memcmp(group, &expected.bits[i], 8), 0) << "group " << i / 4;
  }
}

TEST(Sm90aLayout, EveryByteOfABlockIsUsedOnce) {
  std::multiset<int> bytes;
  for (int row = 0; row < 64; ++row) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < 16; ++i) bytes.insert(sm90a::value_offset(row, quarter) + i);
      for (int i = 0; i < 2; ++i) bytes.insert(sm90a::metadata_offset(row, quarter) + i);
    }
  }
  ASSERT_EQ(bytes.size(), static_cast<std::size_t>(sm90a::kBlockBytes));
  int expected = 0;
  for (const int byte : bytes) ASSERT_EQ(byte, expected++);
}

TEST(Sm90aLayout, WgmmaReadsThePrunedMatrix) {
  for (const Fill fill : {Fill::kGaussian, Fill::kSmallIntegers, Fill::kAnyBits, Fill::kSpecialGroups}) {
    for (const auto& [m, k] : {std::pair<int64_t, int64_t>{1, 64}, {64, 64}, {65, 128}, {100, 192}, {200, 320}}) {
      const HostMatrix x = make_matrix(m, k, fill, 7);
      const HostMatrix expected = prune_by_sorting(x);
      const std::vector<uint8_t> blocks = compress_like_kernel(x);
      EXPECT_EQ(blocks.size(), static_cast<std::size_t>(sm90a::compressed_bytes(m, k).value()));
      EXPECT_EQ(read_like_wgmma(blocks, m, k).bits, expected.bits) << m << " x " << k;
      EXPECT_EQ(decompressed(blocks, m, k).bits, expected.bits) << m << " x " << k;
    }
  }
}

TEST(Sm90aLayout, RowsBeyondMAreZero) {
  const HostMatrix x = make_matrix(70, 128, Fill::kGaussian, 3);
  const HostMatrix all = read_like_wgmma(compress_like_kernel(x), 128, 128);
  for (int64_t row = 70; row < 128; ++row) {
    for (int64_t k = 0; k < 128; ++k) ASSERT_EQ(all.at(row, k), 0);
  }
}

TEST(Sm90aLayout, AgreesWithTheReferenceBackEnd) {
  for (const Fill fill : {Fill::kGaussian, Fill::kAnyBits, Fill::kSpecialGroups}) {
    const HostMatrix x = make_matrix(33, 1024, fill, 11);
    const Result<Compressed24> reference =
        rtlynx::prune_compress({x.bits.data(), 33, 1024, 1024, DType::kBF16}, {}, Backend::kReference);
    ASSERT_TRUE(reference.ok()) << reference.status().to_string();
    HostMatrix expected{33, 1024, std::vector<uint16_t>(x.bits.size())};
    ASSERT_TRUE(decompress(reference.value(), {expected.bits.data(), 33, 1024, 1024, DType::kBF16}).ok());
    EXPECT_EQ(decompressed(compress_like_kernel(x), 33, 1024).bits, expected.bits);
  }
}

TEST(Sm90aScale, DocumentedOrderStaysWithinItsBound) {
  for (const int64_t k : {64, 512, 576, 3072, 15360}) {
    const HostMatrix x = make_matrix(9, k, Fill::kGaussian, 5);
    EXPECT_EQ(check_scales(x, scales_in_kernel_order(x)), "") << "k " << k;
  }
  const HostMatrix zero{2, 64, std::vector<uint16_t>(128, 0x8000)};
  for (const float scale : scales_in_kernel_order(zero)) EXPECT_EQ(scale, 0.0f);
}

TEST(Sm90aScale, CheckerFindsAWrongScale) {
  const HostMatrix x = make_matrix(9, 512, Fill::kGaussian, 5);
  std::vector<float> scales = scales_in_kernel_order(x);
  scales[4] *= 1.0f + 0x1p-18f;
  EXPECT_NE(check_scales(x, scales), "");
}

TEST(Sm90aDecompress, RefusesWhatIsNoMatrix) {
  const HostMatrix x = make_matrix(64, 64, Fill::kGaussian, 1);
  std::vector<uint8_t> blocks = compress_like_kernel(x);
  std::vector<uint16_t> out(64 * 64);
  const MutableMatrixView view{out.data(), 64, 64, 64, DType::kBF16};
  EXPECT_EQ(sm90a::decompress_on_host(nullptr, view).code(), ErrorCode::kInvalidArgument);
  MutableMatrixView wrong = view;
  wrong.dtype = DType::kF32;
  EXPECT_EQ(sm90a::decompress_on_host(blocks.data(), wrong).code(), ErrorCode::kInvalidArgument);
  wrong = view;
  wrong.cols = 60;
  EXPECT_EQ(sm90a::decompress_on_host(blocks.data(), wrong).code(), ErrorCode::kUnsupported);
  for (const unsigned bits : {0x0u, 0x5u, 0x1u, 0xbu}) {  // equal or falling indices in the first group
    blocks[4096] = static_cast<uint8_t>((blocks[4096] & 0xf0) | bits);
    EXPECT_EQ(sm90a::decompress_on_host(blocks.data(), view).code(), ErrorCode::kInvalidArgument) << bits;
  }
}

}  // namespace
}  // namespace rtlynx::test
