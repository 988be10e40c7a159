#pragma once

#include <cstdint>

/// Barriers in shared memory that count arrivals and the bytes of asynchronous copies.
///
/// All of them use the instructions' default semantics. The explicit forms .release.cluster and .acquire.cluster
/// compile to MEMBAR.ALL.GPU and to an invalidation of L1 per stage, and cost a third of the product's speed.
namespace rtlynx::sm90a::ptx {

/// The 32-bit address that the instructions below take.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// Makes initialised barriers visible to the other CTAs of the cluster and to asynchronous copies.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// One arrival that also announces `bytes` of copies; the phase ends when all arrivals and all bytes are in.
__device__ __forceinline__ void mbarrier_arrive_expect_bytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/// One arrival at the barrier of the same address in CTA `cta` of the cluster.
__device__ __forceinline__ void mbarrier_arrive_in_cluster(uint32_t barrier, uint32_t cta) {
  asm volatile(
      "{ .reg .b32 remote;\n"
      "  mapa.shared::cluster.u32 remote, %0, %1;\n"
      "  mbarrier.arrive.shared::cluster.b64 _, [remote]; }" ::"r"(barrier),
      "r"(cta)
      : "memory");
}

/// Returns when the phase of this parity is over. A fresh barrier's phase of parity 1 counts as over.
__device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{ .reg .pred done;\n"
      "again:\n"
      "  mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "  @!done bra again; }" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

}  // namespace rtlynx::sm90a::ptx
