// FP8 on the host: rounding, the layout of compressed blocks against the instruction set's description, and which
// arguments are refused.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "fp8_oracle.h"
#include "kernels/sm90a/fp8.h"
#include "kernels/sm90a/layout_fp8.h"
#include "kernels/sm90a/prune_compress_fp8_config.h"
#include "kernels/sm90a/spmm_config.h"

namespace rtlynx::test {
namespace {

using sm90a::e4m3_from_float;
using sm90a::float_from_e4m3;

TEST(Sm90aFp8, EveryCodeSurvives) {
  for (int code = 0; code < 256; ++code) {
    const float value = float_from_e4m3(static_cast<uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_EQ(e4m3_from_float(value), code);
    }
  }
  EXPECT_EQ(float_from_e4m3(0x7e), 448.0f);
  EXPECT_EQ(float_from_e4m3(0x01), 0x1p-9f);
  EXPECT_EQ(float_from_e4m3(0x38), 1.0f);
}

TEST(Sm90aFp8, RoundsToNearestAndTiesToEven) {
  for (int code = 0; code < 0x7e; ++code) {
    const float low = float_from_e4m3(static_cast<uint8_t>(code)),
                high = float_from_e4m3(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    for (const int sign : {0, 0x80}) {
      const float by = sign == 0 ? 1.0f : -1.0f;
      EXPECT_EQ(e4m3_from_float(by * middle), sign | (code % 2 == 0 ? code : code + 1)) << code;
      EXPECT_EQ(e4m3_from_float(by * std::nextafter(middle, 0.0f)), sign | code) << code;
      EXPECT_EQ(e4m3_from_float(by * std::nextafter(middle, 1000.0f)), sign | (code + 1)) << code;
    }
  }
}

TEST(Sm90aFp8, Saturates) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float value : {448.0f, 463.0f, 464.0f, 465.0f, 1e30f, inf}) {
    EXPECT_EQ(e4m3_from_float(value), 0x7e);
    EXPECT_EQ(e4m3_from_float(-value), 0xfe);
  }
  EXPECT_EQ(e4m3_from_float(NAN), 0x7f);
  EXPECT_EQ(e4m3_from_float(-NAN), 0x7f);
  EXPECT_EQ(e4m3_from_float(-0.0f), 0x80);
  EXPECT_EQ(e4m3_from_float(1e-40f), 0x00);
}

TEST(Sm90aFp8, TheLargestOfARowBecomes448) {
  for (uint32_t bits = 0x0080; bits < 0x7f80; bits += 7) {  // every 7th normal bf16
    const float amax = float_from_bf16(static_cast<uint16_t>(bits));
    if (amax < sm90a::kSmallestAmax) continue;
    const sm90a::RowScale scale = sm90a::row_scale(amax);
    ASSERT_EQ(e4m3_from_float(amax * scale.inverse), 0x7e) << amax;
    ASSERT_NEAR(scale.scale * 448.0f / amax, 1.0f, 1e-6f);
  }
  const sm90a::RowScale zero = sm90a::row_scale(0.0f);
  EXPECT_EQ(e4m3_from_float(0.0f * zero.inverse), 0);
  EXPECT_TRUE(std::isnan(sm90a::row_scale(NAN).scale));
}

TEST(Sm90aFp8, QuantisesWhatSortingKeeps) {
  const HostMatrix x = make_matrix(5, 384, Fill::kGaussian, 9);
  const HostFp8 expected = quantize_rows(prune_by_sorting(x)), got = prune_and_quantize(x, false);
  EXPECT_EQ(got.codes, expected.codes);
  EXPECT_EQ(got.factor, expected.factor);
}

TEST(Sm90aFp8, ARowWithInfOrNanQuantisesItToNan) {
  HostMatrix x = make_matrix(2, 128, Fill::kGaussian, 1);
  x.at(0, 5) = 0x7f80;
  x.at(1, 9) = 0xffc0;
  const HostFp8 out = prune_and_quantize(x, true);
  EXPECT_EQ(out.at(0, 5), 0x7f);
  EXPECT_EQ(out.at(1, 9), 0x7f);
}

TEST(Sm90aFp8Layout, EveryByteOfABlockIsUsedOnce) {
  std::multiset<int> bytes;
  for (int row = 0; row < 64; ++row) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < 16; ++i) bytes.insert(sm90a::value_offset(row, quarter) + i);
      for (int i = 0; i < 4; ++i) bytes.insert(sm90a::fp8_metadata_offset(row, quarter) + i);
    }
  }
  ASSERT_EQ(bytes.size(), static_cast<std::size_t>(sm90a::kFp8BlockBytes));
  int expected = 0;
  for (const int byte : bytes) ASSERT_EQ(byte, expected++);
}

TEST(Sm90aFp8Layout, WgmmaReadsWhatWasPruned) {
  for (const Fill fill : {Fill::kGaussian, Fill::kAnyBits, Fill::kSpecialGroups}) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{64, 128}, {1, 256}, {130, 384}}) {
      const HostMatrix x = make_matrix(rows, cols, fill, 3);
      const HostFp8 values = prune_and_quantize(x, false);
      const std::vector<uint8_t> blocks = compress_fp8(x, values);
      EXPECT_EQ(read_like_wgmma_fp8(blocks, rows, cols), values.codes);
      EXPECT_EQ(blocks.size(), static_cast<std::size_t>(sm90a::compressed_fp8_bytes(rows, cols).value()));
    }
  }
}

TEST(Sm90aFp8, ScalesStayNearTheExactOnes) {
  for (const int64_t cols : {128, 3072, 4096, 12288, 24576}) {
    const HostMatrix x = make_matrix(2, cols, Fill::kGaussian, 5);
    EXPECT_EQ(check_scales(x, fp8_scales_in_kernel_order(x)), "") << cols;
  }
  EXPECT_EQ(sm90a::fp8_warps_per_row(3072), 1);
  EXPECT_EQ(sm90a::fp8_warps_per_row(3200), 2);
  EXPECT_EQ(sm90a::fp8_warps_per_row(12288), 4);
  EXPECT_EQ(sm90a::fp8_warps_per_row(15360), 8);
  EXPECT_EQ(sm90a::kFp8PruneMaxK, 24576);
}

TEST(Sm90aFp8, TilesFitSharedMemory) {
  for (const sm90a::SpmmTile& tile : sm90a::kSpmmTiles) {
    for (const auto epilogue : {sm90a::Epilogue::kDense, sm90a::Epilogue::kGelu, sm90a::Epilogue::kGatedResidual}) {
      const sm90a::SpmmTile fp8 = sm90a::with_epilogue(tile, epilogue, sm90a::Format::kFp8);
      EXPECT_LE(fp8.shared_bytes(), sm90a::kSharedBytesLimit);
      EXPECT_EQ(fp8.factor_bytes, 4 * tile.columns);
      EXPECT_EQ(fp8.factors_offset() % 16, 0);
      EXPECT_EQ(fp8.barriers_offset() % 8, 0);
      // A residual costs 128x256 two stages, 1 KiB of column factors being more than what bf16 leaves.
      EXPECT_GE(fp8.stages, 3);
    }
  }
}

/// Arguments of one call, all good until a test spoils one; addresses are never read.
struct Call {
  void* at(int64_t megabytes) { return reinterpret_cast<void*>(megabytes << 20); }
  MatrixView x{at(1), 100, 256, 256, DType::kBF16};
  sm90a::MutableCompressedFp8View a{at(2), static_cast<float*>(at(3)), 100, 256};
  MatrixView w{at(4), 64, 256, 256, DType::kBF16};
  MutableMatrixView values{at(5), 64, 256, 256, DType::kF8E4M3};
  float* factor = static_cast<float*>(at(6));
  MutableMatrixView d{at(7), 100, 64, 64, DType::kBF16};
  sm90a::SpmmOptions options{};

  ErrorCode prune() { return sm90a::plan_prune_compress_fp8(x, a).status().code(); }
  ErrorCode quantize() { return sm90a::check_quantize_weight_fp8(w, values, factor).code(); }
  ErrorCode multiply() {
    return sm90a::check_spmm_fp8(read_only(a),
                                 {{values.data, values.rows, values.cols, values.row_stride, values.dtype}, factor}, d,
                                 options)
        .code();
  }
};

TEST(Sm90aFp8Arguments, GoodOnesPass) {
  Call call;
  EXPECT_EQ(call.prune(), ErrorCode::kOk);
  EXPECT_EQ(call.quantize(), ErrorCode::kOk);
  EXPECT_EQ(call.multiply(), ErrorCode::kOk);
  const auto plan = sm90a::plan_prune_compress_fp8(call.x, call.a);
  EXPECT_EQ(plan.value().rows, 128);
  EXPECT_EQ(plan.value().ctas, 16);
}

TEST(Sm90aFp8Arguments, BadOnesAreRefused) {
  const auto code_of = [](auto method, auto spoil) {
    Call call;
    spoil(call);
    return (call.*method)();
  };
  constexpr auto kInvalid = ErrorCode::kInvalidArgument, kUnsupported = ErrorCode::kUnsupported;
  const auto narrow = [](Call& c) { c.x.cols = c.a.k = c.w.cols = c.values.cols = 192; };
  EXPECT_EQ(code_of(&Call::prune, narrow), kUnsupported);
  EXPECT_EQ(code_of(&Call::quantize, narrow), kUnsupported);
  EXPECT_EQ(code_of(&Call::multiply, narrow), kUnsupported);
  EXPECT_EQ(code_of(&Call::prune, [](Call& c) { c.x.cols = c.x.row_stride = c.a.k = 24704; }), kUnsupported);
  EXPECT_EQ(code_of(&Call::prune, [](Call& c) { c.a.factor = nullptr; }), kInvalid);
  EXPECT_EQ(code_of(&Call::prune, [](Call& c) { c.x.data = c.a.blocks; }), kInvalid);
  EXPECT_EQ(code_of(&Call::quantize, [](Call& c) { c.values.dtype = DType::kF8E5M2; }), kInvalid);
  EXPECT_EQ(code_of(&Call::quantize, [](Call& c) { c.values.row_stride = 264; }), kInvalid);
  EXPECT_EQ(code_of(&Call::quantize, [](Call& c) { c.factor = reinterpret_cast<float*>(0x1004); }), kInvalid);
  EXPECT_EQ(code_of(&Call::quantize, [](Call& c) { c.values.data = c.at(4); }), kInvalid);
  EXPECT_EQ(code_of(&Call::multiply, [](Call& c) { c.values.dtype = DType::kBF16; }), kInvalid);
  EXPECT_EQ(code_of(&Call::multiply, [](Call& c) { c.values.rows = c.d.cols = 60; }), kUnsupported);
  EXPECT_EQ(code_of(&Call::multiply, [](Call& c) { c.factor = nullptr; }), kInvalid);
  EXPECT_EQ(code_of(&Call::multiply, [](Call& c) { c.options.use_scale = false; }), kInvalid);
  EXPECT_EQ(code_of(&Call::multiply, [](Call& c) { c.d.data = c.factor; }), kInvalid);
  EXPECT_EQ(code_of(&Call::multiply, [](Call& c) { c.d.data = c.at(2); }), kInvalid);
  EXPECT_EQ(code_of(&Call::multiply, [](Call& c) { c.d.rows = 99; }), kInvalid);
  EXPECT_EQ(sm90a::compressed_fp8_bytes(65, 256).value(), 2 * 2 * 5120);
  EXPECT_EQ(sm90a::compressed_fp8_bytes(0, 256).status().code(), kInvalid);
  EXPECT_EQ(sm90a::compressed_fp8_bytes(64, 64).status().code(), kUnsupported);
}

}  // namespace
}  // namespace rtlynx::test
