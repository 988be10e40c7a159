#pragma once

#include <cstdint>

#include "kernels/sm90a/host_device.h"

/// Asynchronous products of a warpgroup, D [64, N] += A B^T with A and B in shared memory, bf16 or e4m3 in, fp32 sums.
///
/// Accumulators: lane l of warp w holds, of rows r = 16 w + l / 4 and r + 8, columns c = 8 j + 2 (l % 4) and c + 1:
/// d[4 j] = (r, c), d[4 j + 1] = (r, c + 1), d[4 j + 2] = (r + 8, c), d[4 j + 3] = (r + 8, c + 1).
namespace rtlynx::sm90a::ptx {

/// Before the first product, and after any other access to the accumulators or the metadata registers.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Waits until at most `kPending` committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Matrix descriptors of K-major operands: start address, leading offset (unused), 8 rows' offset, all in units of
/// 16 bytes, and the swizzle. Advancing by k adds the bytes / 16 to the descriptor.
RTLYNX_HOST_DEVICE constexpr uint64_t matrix_descriptor(uint32_t shared, uint32_t bytes_of_8_rows, uint64_t swizzle) {
  return static_cast<uint64_t>((shared & 0x3ffffu) >> 4) | (uint64_t{1} << 16) |
         (static_cast<uint64_t>(bytes_of_8_rows >> 4) << 32) | (swizzle << 62);
}
/// Rows of 128 bytes (64 bf16), swizzled by 128 bytes; `shared` is a multiple of 1024.
RTLYNX_HOST_DEVICE constexpr uint64_t descriptor_128(uint32_t shared) {
  return matrix_descriptor(shared, 1024, 1);
}
/// Rows of 64 bytes (32 bf16), swizzled by 64 bytes; `shared` is a multiple of 512.
RTLYNX_HOST_DEVICE constexpr uint64_t descriptor_64(uint32_t shared) {
  return matrix_descriptor(shared, 512, 2);
}

/// One step of a product.
///   sparse<kSelector>: 32 k, D = A B^T + (accumulate ? D : 0); A holds 16 kept values per row, `metadata` is the
///   lane's
///                      word (layout.h), kSelector says which of the two k32 steps the word is read for
///   sparse_e4m3:       64 k of e4m3, likewise; the word of layout_fp8.h is all of this step's. Of the sums, the tensor
///   cores keep about 14 bits while they add
///   dense:             16 k, D += A B^T
template <int kN>
struct Wgmma;

#define RTLYNX_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define RTLYNX_D16(i) RTLYNX_D4(i), RTLYNX_D4(i + 4), RTLYNX_D4(i + 8), RTLYNX_D4(i + 12)
#define RTLYNX_D32(i) RTLYNX_D16(i), RTLYNX_D16(i + 16)
#define RTLYNX_D64 RTLYNX_D32(0), RTLYNX_D32(32)
#define RTLYNX_D96 RTLYNX_D64, RTLYNX_D32(64)
#define RTLYNX_D128 RTLYNX_D96, RTLYNX_D32(96)

#define RTLYNX_NAMES_64                                                                                        \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28," \
  "%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,"   \
  "%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define RTLYNX_NAMES_96                                                                                               \
  RTLYNX_NAMES_64                                                                                                     \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91," \
  "%92,%93,%94,%95"
#define RTLYNX_NAMES_128                                                                                             \
  RTLYNX_NAMES_96                                                                                                    \
  ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118," \
  "%119,%120,%121,%122,%123,%124,%125,%126,%127"

// `n` columns in `count` = n / 2 accumulators; i0..i4 are the operands that follow them.
#define RTLYNX_DEFINE_WGMMA(n, count, i0, i1, i2, i3, i4)                                                            \
  template <>                                                                                                        \
  struct Wgmma<n> {                                                                                                  \
    template <int kSelector>                                                                                         \
    static __device__ __forceinline__ void sparse(float (&d)[count], uint64_t a, uint64_t b, uint32_t metadata,      \
                                                  int accumulate) {                                                  \
      asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #i3                                                            \
                   ", 0;\n"                                                                                          \
                   "wgmma.mma_async.sp.sync.aligned.m64n" #n "k32.f32.bf16.bf16 {" RTLYNX_NAMES_##count              \
                   "}, %" #i0 ", %" #i1 ", %" #i2 ", %" #i4 ", p, 1, 1, 0, 0; }\n"                                   \
                   : RTLYNX_D##count                                                                                 \
                   : "l"(a), "l"(b), "r"(metadata), "r"(accumulate), "n"(kSelector));                                \
    }                                                                                                                \
    static __device__ __forceinline__ void sparse_e4m3(float (&d)[count], uint64_t a, uint64_t b, uint32_t metadata, \
                                                       int accumulate) {                                             \
      asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #i3                                                            \
                   ", 0;\n"                                                                                          \
                   "wgmma.mma_async.sp.sync.aligned.m64n" #n "k64.f32.e4m3.e4m3 {" RTLYNX_NAMES_##count              \
                   "}, %" #i0 ", %" #i1 ", %" #i2 ", 0, p, 1, 1; }\n"                                                \
                   : RTLYNX_D##count                                                                                 \
                   : "l"(a), "l"(b), "r"(metadata), "r"(accumulate));                                                \
    }                                                                                                                \
    static __device__ __forceinline__ void dense(float (&d)[count], uint64_t a, uint64_t b) {                        \
      asm volatile(                                                                                                  \
          "{ .reg .pred p; setp.eq.b32 p, 0, 0;\n"                                                                   \
          "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" RTLYNX_NAMES_##count "}, %" #i0 ", %" #i1     \
                                                                                            ", p, 1, 1, 0, 0; }\n"   \
          : RTLYNX_D##count                                                                                          \
          : "l"(a), "l"(b));                                                                                         \
    }                                                                                                                \
  };

RTLYNX_DEFINE_WGMMA(128, 64, 64, 65, 66, 67, 68)
RTLYNX_DEFINE_WGMMA(192, 96, 96, 97, 98, 99, 100)
RTLYNX_DEFINE_WGMMA(256, 128, 128, 129, 130, 131, 132)

#undef RTLYNX_D4
#undef RTLYNX_D16
#undef RTLYNX_D32
#undef RTLYNX_D64
#undef RTLYNX_D96
#undef RTLYNX_D128
#undef RTLYNX_NAMES_64
#undef RTLYNX_NAMES_96
#undef RTLYNX_NAMES_128
#undef RTLYNX_DEFINE_WGMMA

}  // namespace rtlynx::sm90a::ptx
