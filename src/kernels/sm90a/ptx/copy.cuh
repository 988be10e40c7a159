#pragma once

#include <cuda.h>

#include <cstdint>

/// Copies: asynchronous ones between global and shared memory (by the copy engine), and stmatrix.
namespace rtlynx::sm90a::ptx {

/// `bytes` (a multiple of 16) from global to this CTA's shared memory; counted at `barrier`.
__device__ __forceinline__ void bulk_load(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
               "l"(global), "r"(bytes), "r"(barrier)
               : "memory");
}

/// The box of `map` at (column, row) to this CTA's shared memory. Elements beyond the matrix arrive as zeros, and
/// count.
__device__ __forceinline__ void tensor_load(uint32_t shared, const CUtensorMap* map, int column, int row,
                                            uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          shared),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

/// The same box to the same shared address of every CTA in `mask`, counted at each one's barrier of that address.
__device__ __forceinline__ void tensor_load_multicast(uint32_t shared, const CUtensorMap* map, int column, int row,
                                                      uint32_t barrier, uint16_t mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(mask)
      : "memory");
}

/// A box from shared memory to (column, row); what lies beyond the matrix is not written. Joins the thread's open
/// group.
__device__ __forceinline__ void tensor_store(const CUtensorMap* map, int column, int row, uint32_t shared) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(column),
               "r"(row), "r"(shared)
               : "memory");
}

__device__ __forceinline__ void store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/// Waits until the thread's committed stores have read their shared memory.
__device__ __forceinline__ void store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/// Waits until they have been written.
__device__ __forceinline__ void store_wait() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/// Between ordinary writes to shared memory and a copy that reads them; by every writing thread.
__device__ __forceinline__ void fence_shared_for_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// A word that is read once. Not the .nc form, although nobody writes the data: ptxas would sink it to just before its
/// use, and the place in the code is where its latency gets hidden.
__device__ __forceinline__ uint32_t load_streamed(const void* global) {
  uint32_t word;
  asm volatile("ld.global.L1::no_allocate.u32 %0, [%1];" : "=r"(word) : "l"(global) : "memory");
  return word;
}

/// The same for a float.
__device__ __forceinline__ float load_early(const float* global) {
  float value;
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(value) : "l"(global) : "memory");
  return value;
}

/// Two words, as load_streamed.
__device__ __forceinline__ uint2 load_streamed_pair(const void* global) {
  uint2 words;
  asm volatile("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
               : "=r"(words.x), "=r"(words.y)
               : "l"(global)
               : "memory");
  return words;
}

/// Four 8x8 matrices of 16 bits, matrix i from word[i] in wgmma's accumulator order; lane l gives the address of row
/// l % 8 of matrix l / 8.
__device__ __forceinline__ void store_matrices(uint32_t shared, const uint32_t (&word)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(word[0]),
               "r"(word[1]), "r"(word[2]), "r"(word[3])
               : "memory");
}

/// The reverse of store_matrices.
__device__ __forceinline__ void load_matrices(uint32_t shared, uint32_t (&word)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(shared)
               : "memory");
}

/// 16 bytes of shared memory.
__device__ __forceinline__ uint4 load_shared(uint32_t shared) {
  uint4 words;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(shared)
               : "memory");
  return words;
}

__device__ __forceinline__ float2 load_shared_pair(uint32_t shared) {
  float2 pair;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "r"(shared) : "memory");
  return pair;
}

__device__ __forceinline__ void store_shared(uint32_t shared, uint32_t word) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(word) : "memory");
}
__device__ __forceinline__ void store_shared(uint32_t shared, const uint4& words) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(words.x), "r"(words.y), "r"(words.z),
               "r"(words.w)
               : "memory");
}

}  // namespace rtlynx::sm90a::ptx
