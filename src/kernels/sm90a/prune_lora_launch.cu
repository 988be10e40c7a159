#include <atomic>
#include <utility>

#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/device.h"
#include "kernels/sm90a/prune_lora_kernel.cuh"
#include "kernels/sm90a/tensor_map.h"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {
namespace {

using Kernel = void (*)(PruneLoraMaps, PruneLoraArguments);

constexpr Kernel kKernels[] = {prune_lora_kernel<32>, prune_lora_kernel<64>, prune_lora_kernel<128>};
constexpr int kKernelCount = 3;

int kernel_of(int columns) {
  return columns == 32 ? 0 : columns == 64 ? 1 : 2;
}

/// Once per device and kernel.
Status allow_shared_memory(int kernel, int bytes) {
  static std::atomic<bool> allowed[kMaxDevices][kKernelCount];
  const Result<int> device = current_device();
  if (!device.ok()) return device.status();
  std::atomic<bool>& done = allowed[device.value()][kernel];
  if (done.load(std::memory_order_acquire)) return {};
  const auto* function = reinterpret_cast<const void*>(kKernels[kernel]);
  // All of it for shared memory, so that two CTAs fit: the default may leave room for one.
  for (const auto& [attribute, value] : {std::pair{cudaFuncAttributeMaxDynamicSharedMemorySize, bytes},
                                         {cudaFuncAttributePreferredSharedMemoryCarveout, 100}}) {
    Status status = cuda_status(cudaFuncSetAttribute(function, attribute, value), "prune_compress_lora: shared memory");
    if (!status.ok()) return status;
  }
  done.store(true, std::memory_order_release);
  return {};
}

}  // namespace

Status prune_compress_lora(const MatrixView& x, const MutableCompressedView& out, const LoraDown& lora, Stream stream) {
  const Result<PruneLoraPlan> plan = plan_prune_compress_lora(x, out, lora);
  if (!plan.ok()) return plan.status();
  if (Status status = check_device(); !status.ok()) return status;
  const int columns = plan.value().columns, kernel = kernel_of(columns), bytes = lora_shared_bytes(columns);
  if (Status status = allow_shared_memory(kernel, bytes); !status.ok()) return status;
  PruneLoraMaps maps{};
  if (Status status = make_tensor_map(x, kBlockK, kBlockRows, Swizzle::k128Bytes, maps.x); !status.ok()) return status;
  const auto rows = static_cast<uint32_t>(columns);
  if (Status status = make_tensor_map(lora.lora_a, kBlockK, rows, Swizzle::k128Bytes, maps.lora_a); !status.ok()) {
    return status;
  }
  const PruneLoraArguments args{static_cast<uint8_t*>(out.blocks),
                                out.scale,
                                static_cast<uint16_t*>(lora.t.data),
                                lora.t.row_stride,
                                plan.value().rank,
                                static_cast<int>(out.m),
                                static_cast<int>(plan.value().k_blocks)};
  kKernels[kernel]<<<static_cast<unsigned>(plan.value().ctas), kLoraThreads, static_cast<std::size_t>(bytes), stream>>>(
      maps, args);
  return cuda_status(cudaGetLastError(), "prune_compress_lora: launch");
}

}  // namespace rtlynx::sm90a
