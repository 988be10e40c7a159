// Compiled once for AVX2 and once for AVX-512 by Highway's foreach_target. Highway's baseline target has no vectors
// with GCC 12 and is left empty: machines without AVX2 run the reference.
#include "kernels/cpu/simd_table.h"

#define RTLYNX_WANTED_TARGETS (HWY_AVX2 | HWY_AVX3)
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (((HWY_AVX2 << 4) - 1) & ~RTLYNX_WANTED_TARGETS)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/simd_kernels.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#if HWY_TARGET & RTLYNX_WANTED_TARGETS
#include "kernels/cpu/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace rtlynx::cpu::HWY_NAMESPACE {

/// The bf16 pair layout takes 3 times the room of fp32 rows in a quarter of the k: 64 columns keep a useful k block in
/// the L1 cache. Its product itself is in pairs_avx512.cpp.
inline constexpr int64_t kPairColumns = 64;

const SimdTable& Table() {
  static const SimdTable table = [] {
    SimdTable t;
    t.target = kLanes == 16 ? SimdTarget::kAvx512 : SimdTarget::kAvx2;
    t.lanes = kLanes;
    t.panel_width = kPanelColumns;
    t.widen = Widen;
    t.prune_row = PruneRow;
    t.compress_row = CompressRow;
    t.pack_row = PackRow<kPanelColumns>;
    t.lora_down = LoraDownRows;
    t.panel_block = PanelBlockFrom<static_cast<int>(kPanelVectors)>;
    t.write_tokens = WriteTokens<kPanelColumns>;
    t.low_rank = LowRankOf<kPanelColumns>;
    return t;
  }();
  return table;
}

const SimdTable& PairTableWithoutProduct() {
  static const SimdTable table = [] {
    SimdTable t = Table();
    t.target = SimdTarget::kAvx512Bf16;
    t.panel_width = kPairColumns;
    t.bytes_per_weight = 6;
    t.has_pairs = true;
    t.pack_row = PackRowPairs<kPairColumns>;
    t.panel_block = nullptr;
    t.write_tokens = WriteTokens<kPairColumns>;
    t.low_rank = LowRankOf<kPairColumns>;
    return t;
  }();
  return table;
}

}  // namespace rtlynx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace rtlynx::cpu {

const std::vector<const SimdTable*>& highway_tables() {
  // Asked once: in a virtual machine each cpuid behind SupportedTargets() is a trap of tens of microseconds.
  static const std::vector<const SimdTable*> tables = [] {
    std::vector<const SimdTable*> found;
    [[maybe_unused]] const auto supported = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX2
    if (supported & HWY_AVX2) found.push_back(&N_AVX2::Table());
#endif
#if HWY_TARGETS & HWY_AVX3
    if (supported & HWY_AVX3) found.push_back(&N_AVX3::Table());
#endif
    return found;
  }();
  return tables;
}

const SimdTable* pair_table_without_product() {
#if HWY_TARGETS & HWY_AVX3
  const auto& tables = highway_tables();
  const bool has_avx512 = !tables.empty() && tables.back()->target == SimdTarget::kAvx512;
  return has_avx512 ? &N_AVX3::PairTableWithoutProduct() : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace rtlynx::cpu
#endif
