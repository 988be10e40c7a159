// Pruning and packing of one token, once per SIMD target (see hwy/foreach_target.h for the guard's form).
#if defined(RTLYNX_KERNELS_CPU_PRUNE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RTLYNX_KERNELS_CPU_PRUNE_INL_H_
#undef RTLYNX_KERNELS_CPU_PRUNE_INL_H_
#else
#define RTLYNX_KERNELS_CPU_PRUNE_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/selection.h"
#include "kernels/cpu/simd_table.h"
#include "kernels/norm_scale.h"

HWY_BEFORE_NAMESPACE();
namespace rtlynx::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Never more than 16 lanes: a strip of 16 k is whole vectors in every target.
using Floats = hn::CappedTag<float, kStripK>;
using Ints = hn::RebindToSigned<Floats>;
using FloatVector = hn::Vec<Floats>;
inline constexpr int64_t kLanes = HWY_MAX_BYTES / 4 < 16 ? HWY_MAX_BYTES / 4 : 16;
inline constexpr int64_t kParts = kStripK / kLanes;

/// True in the lanes that stay. Magnitudes are compared as integers, every NaN as the one value above Inf; a lane loses
/// when two of its three neighbours beat it. "Beats" is larger, or equal at a lower index: other > self - (1 if lower),
/// here as the sign of a difference. As of two lanes exactly one beats the other, what lane i - 1 does to lane i is the
/// opposite of what lane i + 1 does to its own neighbour below.
HWY_INLINE hn::Mask<Floats> KeepMask(Floats d, FloatVector x) {
  const Ints di;
  HWY_ALIGN static constexpr int32_t kLower1[16] = {0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1};
  HWY_ALIGN static constexpr int32_t kLower2[16] = {0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1};
  const auto self = hn::Min(hn::And(hn::BitCast(di, x), hn::Set(di, 0x7fffffff)), hn::Set(di, 0x7f800001));
  const auto beats1 = hn::Sub(hn::Sub(self, hn::LoadU(di, kLower1)), hn::Shuffle0321(self));
  const auto beats2 = hn::Sub(hn::Sub(self, hn::LoadU(di, kLower2)), hn::Shuffle1032(self));
  const auto spared3 = hn::Shuffle2103(beats1);
#if HWY_TARGET == HWY_AVX3
  // Not the majority of (beats1, beats2, not spared3), in one instruction instead of four.
  const hn::Vec<Ints> stays{_mm512_ternarylogic_epi32(beats1.raw, beats2.raw, spared3.raw, 0x2B)};
#else
  const auto loses = hn::Or(hn::And(beats1, beats2), hn::AndNot(spared3, hn::Or(beats1, beats2)));
  const auto stays = hn::Not(loses);
#endif
  return hn::RebindMask(d, hn::Lt(stays, hn::Zero(di)));
}

/// The two sums of the norm compensation, in the order that sparse24.h promises; both targets have true fused
/// multiply-adds.
class ScaleSums {
 public:
  HWY_INLINE ScaleSums() {
    for (int64_t p = 0; p < kParts; ++p) all_[p] = kept_[p] = hn::Zero(Floats());
  }
  HWY_INLINE void Add(int64_t part, FloatVector x, FloatVector kept) {
    all_[part] = hn::MulAdd(x, x, all_[part]);
    kept_[part] = hn::MulAdd(kept, kept, kept_[part]);
  }
  HWY_INLINE float Scale() const {
    HWY_ALIGN float all[kStripK], kept[kStripK];
    for (int64_t p = 0; p < kParts; ++p) {
      hn::Store(all_[p], Floats(), all + p * kLanes);
      hn::Store(kept_[p], Floats(), kept + p * kLanes);
    }
    return norm_scale(add_in_halves(all), add_in_halves(kept));
  }

 private:
  FloatVector all_[kParts];
  FloatVector kept_[kParts];
};

/// The kept half of a vector's lanes, in order, at `out`; `bits` are the mask's.
HWY_INLINE void StoreKept(FloatVector v, hn::Mask<Floats> mask, uint32_t bits, float* out) {
  const hn::Half<Floats> half;
#if HWY_TARGET == HWY_AVX2
  // Highway 1.0.3's Compress copies its table of 8 KiB to the stack at every call when GCC 12 compiles it. Two of four
  // lanes need only two entries of a table of 16.
  (void)mask;
  const auto low = static_cast<int64_t>(kLanePairs[bits & 15]);
  const auto high = static_cast<int64_t>(kLanePairs[bits >> 4] + 0x0000000400000004u);
  const __m256i lanes = _mm256_castsi128_si256(_mm_set_epi64x(high, low));
  const FloatVector kept{_mm256_permutevar8x32_ps(v.raw, lanes)};
#else
  (void)bits;
  const FloatVector kept = hn::Compress(v, mask);
#endif
  hn::StoreU(hn::LowerHalf(half, kept), half, out);
}

/// Prunes the 16 k at x: their 8 kept values go to `kept`, and the 16 mask bits come back.
HWY_INLINE uint32_t PruneStrip(const float* x, int64_t k, ScaleSums& sums, float* kept) {
  const Floats d;
  uint32_t bits = 0;
  for (int64_t p = 0; p < kParts; ++p) {
    const auto v = hn::LoadU(d, x + k + p * kLanes);
    const auto mask = KeepMask(d, v);
    sums.Add(p, v, hn::IfThenElseZero(mask, v));
    uint8_t bytes[8];
    hn::StoreMaskBits(d, mask, bytes);
    uint32_t part = bytes[0];
    if constexpr (kLanes == 16) part |= static_cast<uint32_t>(bytes[1]) << 8;
    StoreKept(v, mask, part, kept + p * kLanes / 2);
    bits |= part << (p * kLanes);
  }
  return bits;
}

HWY_NOINLINE void PruneRow(const float* x, int64_t k_padded, float* out) {
  const Floats d;
  for (int64_t k = 0; k < k_padded; k += kLanes) {
    const auto v = hn::LoadU(d, x + k);
    hn::StoreU(hn::IfThenElseZero(KeepMask(d, v), v), d, out + k);
  }
}

HWY_NOINLINE float CompressRow(const float* x, int64_t k_padded, float* values, uint8_t* metadata) {
  ScaleSums sums;
  for (int64_t k = 0; k < k_padded; k += kStripK) {
    const uint32_t bits = PruneStrip(x, k, sums, values + k / 2);
    for (int64_t g = 0; g < 4; ++g) metadata[k / 4 + g] = kGroupMetadata[(bits >> (4 * g)) & 15];
  }
  return sums.Scale();
}

/// Slots of fp32 products: the offset is the row within the block times the panel's row in bytes.
template <int64_t kPanelWidth>
HWY_NOINLINE float PackRow(const float* x, const RowSlots& to) {
  static constexpr auto kOffsets = make_row_offsets(kPanelWidth * 4);
  constexpr uint64_t kTwoGroups = static_cast<uint64_t>(8 * kPanelWidth * 4) * 0x0001000100010001u;
  auto* values = reinterpret_cast<float*>(to.values);
  ScaleSums sums;
  for (int64_t begin = 0; begin < to.k_padded; begin += to.block_k) {
    const int64_t end = std::min(to.k_padded, begin + to.block_k);
    int64_t slot = to.rows * (begin / 2) + to.row * ((end - begin) / 2);
    uint64_t base = 0;
    for (int64_t k = begin; k < end; k += kStripK, slot += kStripK / 2, base += 2 * kTwoGroups) {
      const uint32_t bits = PruneStrip(x, k, sums, values + slot);
      const uint64_t offsets[2] = {base + kOffsets[bits & 255], base + kTwoGroups + kOffsets[bits >> 8]};
      std::memcpy(to.offsets + slot, offsets, sizeof(offsets));
    }
  }
  return sums.Scale();
}

/// Slots of bf16 pairs: one of six rows for each group.
template <int64_t kPanelWidth>
HWY_NOINLINE float PackRowPairs(const float* x, const RowSlots& to) {
  static constexpr auto kOffsets = make_pair_offsets(kPanelWidth * 4);
  constexpr uint32_t kTwoGroups = static_cast<uint32_t>(12 * kPanelWidth * 4) * 0x00010001u;
  auto* values = reinterpret_cast<uint32_t*>(to.values);
  ScaleSums sums;
  for (int64_t begin = 0; begin < to.k_padded; begin += to.block_k) {
    const int64_t end = std::min(to.k_padded, begin + to.block_k);
    int64_t slot = to.rows * (begin / 4) + to.row * ((end - begin) / 4);
    uint32_t base = 0;
    for (int64_t k = begin; k < end; k += kStripK, slot += kStripK / 4, base += 2 * kTwoGroups) {
      uint32_t kept[8];
      const uint32_t bits = PruneStrip(x, k, sums, reinterpret_cast<float*>(kept));
      for (int64_t g = 0; g < 4; ++g) values[slot + g] = (kept[2 * g] >> 16) | (kept[2 * g + 1] & 0xffff0000u);
      const uint32_t offsets[2] = {base + kOffsets[bits & 255], base + kTwoGroups + kOffsets[bits >> 8]};
      std::memcpy(to.offsets + slot, offsets, sizeof(offsets));
    }
  }
  return sums.Scale();
}

}  // namespace rtlynx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
