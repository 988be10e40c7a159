#include "kernels/cpu/simd_table.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

namespace rtlynx::cpu {
namespace {

#define RTLYNX_PAIRS_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

inline constexpr int64_t kWidth = 64;

struct Line {
  char bytes[64];
};

/// acc + (x_i * w_i + x_j * w_j) in every lane. Inline assembly, because GCC 12 does not fold the load of
/// _mm512_dpbf16_ps into its memory operand, and the folded form is 1.3 times as fast (docs/kernels-cpu.md).
RTLYNX_PAIRS_TARGET inline __attribute__((always_inline)) void add_pairs(__m512& acc, __m512i x,
                                                                         const std::byte* weights) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "m"(*reinterpret_cast<const Line*>(weights)));
}

/// Two tokens at a time: 8 sums in flight for kVectors = 4.
template <int kVectors, int kTokens>
RTLYNX_PAIRS_TARGET void pair_tokens(const PanelBlock& args, int64_t token) {
  __m512 acc[kTokens][kVectors];
  float* sums = args.sums + token * kWidth;
  for (int t = 0; t < kTokens; ++t) {
    for (int i = 0; i < kVectors; ++i) {
      acc[t][i] = args.is_first ? _mm512_setzero_ps() : _mm512_load_ps(sums + t * kWidth + i * 16);
    }
  }
  const std::byte* values = args.values + token * args.slots * 4;
  const uint16_t* offsets = args.offsets + token * args.slots;
  for (int64_t slot = 0; slot < args.slots; slot += 4) {
    __m512i x[kTokens];
    uint64_t four[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const auto* at = reinterpret_cast<const __m128i*>(values + (t * args.slots + slot) * 4);
      x[t] = _mm512_broadcast_i32x4(_mm_loadu_si128(at));
      std::memcpy(&four[t], offsets + t * args.slots + slot, sizeof(four[t]));
    }
    const auto step = [&]<int kSlot>(std::integral_constant<int, kSlot>) RTLYNX_PAIRS_TARGET {
      for (int t = 0; t < kTokens; ++t) {
        const __m512i both = _mm512_shuffle_epi32(x[t], static_cast<_MM_PERM_ENUM>(kSlot * 0x55));
        const std::byte* row = args.weights + ((four[t] >> (16 * kSlot)) & 0xffff);
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) add_pairs(acc[t][i], both, row + i * 64);
      }
    };
    step(std::integral_constant<int, 0>());
    step(std::integral_constant<int, 1>());
    step(std::integral_constant<int, 2>());
    step(std::integral_constant<int, 3>());
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int i = 0; i < kVectors; ++i) _mm512_store_ps(sums + t * kWidth + i * 16, acc[t][i]);
  }
}

/// Reads the two tokens' sums back while they are in L1; conversion and stores are the AVX-512 table's.
void write(const PanelOutput& to, int64_t token, int64_t count, const float* sums) {
  pair_table_without_product()->write_tokens(to, token, count, sums);
}

template <int kVectors>
RTLYNX_PAIRS_TARGET void pair_block_of(const PanelBlock& args) {
  const int64_t lines = args.next == nullptr ? 0 : args.next_bytes / 64;
  const int64_t lines_per_pair = 2 * lines / args.tokens + 1;
  int64_t line = 0, token = 0;
  for (; token + 2 <= args.tokens; token += 2) {
    for (const int64_t end = std::min(lines, line + lines_per_pair); line < end; ++line) {
      __builtin_prefetch(args.next + line * 64, 0, 2);
    }
    pair_tokens<kVectors, 2>(args, token);
    if (args.last != nullptr) write(*args.last, token, 2, args.sums + token * kWidth);
  }
  if (token == args.tokens) return;
  pair_tokens<kVectors, 1>(args, token);
  if (args.last != nullptr) write(*args.last, token, 1, args.sums + token * kWidth);
}

void pair_block(const PanelBlock& args) {
  switch (args.vectors) {
    case 1: return pair_block_of<1>(args);
    case 2: return pair_block_of<2>(args);
    case 3: return pair_block_of<3>(args);
    default: return pair_block_of<4>(args);
  }
}

}  // namespace

const SimdTable* pair_table() {
  static const SimdTable table = [] {
    SimdTable t;
    const SimdTable* base = pair_table_without_product();
    if (base != nullptr && __builtin_cpu_supports("avx512bf16")) {
      t = *base;
      t.panel_block = pair_block;
    }
    return t;
  }();
  return table.panel_block != nullptr ? &table : nullptr;
}

}  // namespace rtlynx::cpu

#else

namespace rtlynx::cpu {
const SimdTable* pair_table() {
  return nullptr;
}
}  // namespace rtlynx::cpu

#endif
