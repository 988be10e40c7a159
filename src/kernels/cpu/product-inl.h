// The products of one SIMD target (see hwy/foreach_target.h for the guard's form).
#if defined(RTLYNX_KERNELS_CPU_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RTLYNX_KERNELS_CPU_PRODUCT_INL_H_
#undef RTLYNX_KERNELS_CPU_PRODUCT_INL_H_
#else
#define RTLYNX_KERNELS_CPU_PRODUCT_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/cpu/prune-inl.h"
#include "kernels/cpu/simd_table.h"

HWY_BEFORE_NAMESPACE();
namespace rtlynx::cpu::HWY_NAMESPACE {

/// Vectors of a panel. 8 of 16 lanes: one broadcast a slot costs 1/8 of a load slot per product. 12 of 8 lanes: AVX2
/// has 16 registers, and 10 sums in flight are what hides the latency of two FMAs a cycle.
inline constexpr int64_t kPanelVectors = kLanes == 16 ? 8 : 12;
inline constexpr int64_t kPanelColumns = kPanelVectors * kLanes;

/// `columns` elements of one vector of y; what lies behind them is not touched.
HWY_INLINE void StoreVector(FloatVector y, DType dtype, std::byte* out, int64_t columns) {
  const Floats d;
  const hn::RebindToUnsigned<Floats> du;
  const hn::Rebind<uint16_t, Floats> dh;
  HWY_ALIGN std::byte buffer[64];
  if (dtype == DType::kF32) {
    if (columns >= kLanes) return hn::StoreU(y, d, reinterpret_cast<float*>(out));
    hn::Store(y, d, reinterpret_cast<float*>(buffer));
    std::memcpy(out, buffer, static_cast<std::size_t>(columns) * sizeof(float));
    return;
  }
  // bf16_from_float, lane by lane.
  const auto bits = hn::BitCast(du, y);
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(y));
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
  const auto high = hn::ShiftRight<16>(hn::IfThenElse(is_nan, hn::Or(bits, hn::Set(du, 0x400000)), rounded));
  const auto halves = hn::DemoteTo(dh, hn::BitCast(Ints(), high));
  if (columns >= kLanes) return hn::StoreU(halves, dh, reinterpret_cast<uint16_t*>(out));
  hn::StoreU(halves, dh, reinterpret_cast<uint16_t*>(buffer));
  std::memcpy(out, buffer, static_cast<std::size_t>(columns) * sizeof(uint16_t));
}

/// Vector i of a token's part of y.
HWY_INLINE void WriteVector(const PanelOutput& to, int64_t token, int64_t i, FloatVector sum) {
  const Floats d;
  const auto scale = hn::Set(d, to.scale == nullptr ? 1.0f : to.scale[token]);
  const auto addend = hn::Load(d, to.addend + token * to.addend_stride + i * kLanes);
  std::byte* y = to.y + token * to.y_stride_bytes + i * kLanes * (to.dtype == DType::kF32 ? 4 : 2);
  StoreVector(hn::MulAdd(scale, sum, addend), to.dtype, y, to.columns - i * kLanes);
}

template <int64_t kWidth>
HWY_NOINLINE void WriteTokens(const PanelOutput& to, int64_t token, int64_t count, const float* sums) {
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t i = 0; i * kLanes < to.columns; ++i) {
      WriteVector(to, token + t, i, hn::Load(Floats(), sums + t * kWidth + i * kLanes));
    }
  }
}

/// The sums of one token and one panel stay in registers while each slot adds its x times its row of the panel. The row
/// comes as the FMA's memory operand: with 2:4 chosen per token nothing else could share the load.
template <int kVectors>
HWY_NOINLINE void PanelBlockOf(const PanelBlock& args) {
  const Floats d;
  const auto* values = reinterpret_cast<const float*>(args.values);
  const uint16_t* offsets = args.offsets;
  const int64_t lines = args.next == nullptr ? 0 : args.next_bytes / 64;
  const int64_t lines_per_token = lines / args.tokens + 1;
  int64_t line = 0;
  for (int64_t t = 0; t < args.tokens; ++t, values += args.slots, offsets += args.slots) {
    float* sums = args.sums + t * kPanelColumns;
    FloatVector acc[kVectors];
    for (int i = 0; i < kVectors; ++i) acc[i] = args.is_first ? hn::Zero(d) : hn::Load(d, sums + i * kLanes);
    for (const int64_t end = std::min(lines, line + lines_per_token); line < end; ++line) {
      __builtin_prefetch(args.next + line * 64, 0, 2);
    }
    const auto add = [&](float x, uint64_t offset) HWY_ATTR {
      const auto* row = reinterpret_cast<const float*>(args.weights + (offset & 0xffff));
      // Hides that `row` is a sum: an FMA whose address has an index register is split in two by Intel's front end.
      asm("" : "+r"(row));
      const auto broadcast = hn::Set(d, x);
      HWY_UNROLL(16)
      for (int i = 0; i < kVectors; ++i) acc[i] = hn::MulAdd(broadcast, hn::Load(d, row + i * kLanes), acc[i]);
    };
    for (int64_t slot = 0; slot < args.slots; slot += 4) {
      uint64_t four;
      std::memcpy(&four, offsets + slot, sizeof(four));
      add(values[slot], four);
      add(values[slot + 1], four >> 16);
      add(values[slot + 2], four >> 32);
      add(values[slot + 3], four >> 48);
    }
    if (args.last != nullptr) {
      for (int i = 0; i < kVectors; ++i) WriteVector(*args.last, t, i, acc[i]);
    } else {
      for (int i = 0; i < kVectors; ++i) hn::Store(acc[i], d, sums + i * kLanes);
    }
  }
}

template <int kVectors>
void PanelBlockFrom(const PanelBlock& args) {
  if constexpr (kVectors > 0) {
    if (args.vectors == kVectors) return PanelBlockOf<kVectors>(args);
    PanelBlockFrom<kVectors - 1>(args);
  }
}

/// kTokens tokens share each load of L_B.
template <int kTokens, int kVectors>
HWY_INLINE void LowRankTile(const LowRank& args, int64_t token, int64_t column, int64_t width) {
  const Floats d;
  FloatVector acc[kTokens][kVectors];
  for (int t = 0; t < kTokens; ++t) {
    for (int i = 0; i < kVectors; ++i) acc[t][i] = hn::Load(d, args.bias + column + i * kLanes);
  }
  for (int64_t j = 0; j < args.rank; ++j) {
    const float* row = args.lora_b + j * width + column;
    FloatVector b[kVectors];
    for (int i = 0; i < kVectors; ++i) b[i] = hn::Load(d, row + i * kLanes);
    for (int t = 0; t < kTokens; ++t) {
      const auto x = hn::Set(d, args.lora_down[(token + t) * args.lora_stride + j]);
      for (int i = 0; i < kVectors; ++i) acc[t][i] = hn::MulAdd(x, b[i], acc[t][i]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    float* out = args.out + (token + t) * width + column;
    for (int i = 0; i < kVectors; ++i) hn::Store(acc[t][i], d, out + i * kLanes);
  }
}

template <int64_t kWidth>
HWY_NOINLINE void LowRankOf(const LowRank& args) {
  constexpr int kTokens = kLanes == 16 ? 6 : 3, kVectors = 4;
  static_assert(kWidth % (kVectors * kLanes) == 0);
  int64_t t = 0;
  for (; t + kTokens <= args.tokens; t += kTokens) {
    for (int64_t c = 0; c < kWidth; c += kVectors * kLanes) LowRankTile<kTokens, kVectors>(args, t, c, kWidth);
  }
  for (; t < args.tokens; ++t) {
    for (int64_t c = 0; c < kWidth; c += kVectors * kLanes) LowRankTile<1, kVectors>(args, t, c, kWidth);
  }
}

/// kRows tokens times kVectors vectors of the rank, all in registers over the k chunk.
template <int kRows, int kVectors>
HWY_INLINE void LoraDownTile(const LoraDown& args, int64_t row, int64_t column) {
  const Floats d;
  FloatVector acc[kRows][kVectors];
  float* out = args.out + row * args.columns + column;
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      acc[r][i] = args.k_begin == 0 ? hn::Zero(d) : hn::LoadU(d, out + r * args.columns + i * kLanes);
    }
  }
  const float* x = args.x + row * args.x_stride;
  const float* a = args.lora_a + args.k_begin * args.columns + column;
  for (int64_t k = args.k_begin; k < args.k_end; ++k, a += args.columns) {
    FloatVector b[kVectors];
    for (int i = 0; i < kVectors; ++i) b[i] = hn::Load(d, a + i * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const auto value = hn::Set(d, x[r * args.x_stride + k]);
      for (int i = 0; i < kVectors; ++i) acc[r][i] = hn::MulAdd(value, b[i], acc[r][i]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      hn::StoreU(acc[r][i], d, out + r * args.columns + i * kLanes);
    }
  }
}

template <int kVectors>
HWY_NOINLINE void LoraDownColumns(const LoraDown& args, int64_t column) {
  constexpr int kRows = kLanes == 16 ? (kVectors == 4 ? 6 : 12) : 3;
  int64_t row = 0;
  for (; row + kRows <= args.rows; row += kRows) LoraDownTile<kRows, kVectors>(args, row, column);
  for (; row < args.rows; ++row) LoraDownTile<1, kVectors>(args, row, column);
}

void LoraDownRows(const LoraDown& args) {
  int64_t column = 0;
  for (; column + 4 * kLanes <= args.columns; column += 4 * kLanes) LoraDownColumns<4>(args, column);
  for (; column + 2 * kLanes <= args.columns; column += 2 * kLanes) LoraDownColumns<2>(args, column);
  for (; column < args.columns; column += kLanes) LoraDownColumns<1>(args, column);
}

HWY_NOINLINE void Widen(const uint16_t* bf16, int64_t count, float* out) {
  const Floats d;
  const hn::RebindToUnsigned<Floats> du;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto bits = hn::PromoteTo(du, hn::LoadU(hn::Rebind<uint16_t, Floats>(), bf16 + i));
    hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(bits)), d, out + i);
  }
  for (; i < count; ++i) out[i] = float_from_bf16(bf16[i]);
}

}  // namespace rtlynx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
