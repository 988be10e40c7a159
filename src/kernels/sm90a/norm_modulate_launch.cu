#include <atomic>

#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/device.h"
#include "kernels/sm90a/norm_modulate_kernel.cuh"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {
namespace {

using Kernel = void (*)(NormModulateArguments);

constexpr Kernel kKernels[] = {norm_modulate_kernel<false, false>, norm_modulate_kernel<false, true>,
                               norm_modulate_kernel<true, false>, norm_modulate_kernel<true, true>};

/// Allows the kernel all of the shared memory that it may need; once per device and kernel.
Status allow_shared_memory(int kernel) {
  static std::atomic<bool> allowed[kMaxDevices][4];
  const Result<int> device = current_device();
  if (!device.ok()) return device.status();
  std::atomic<bool>& done = allowed[device.value()][kernel];
  if (done.load(std::memory_order_acquire)) return {};
  const Status status =
      cuda_status(cudaFuncSetAttribute(reinterpret_cast<const void*>(kKernels[kernel]),
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, norm_shared_bytes(kNormMaxK)),
                  "norm_modulate_prune_compress: shared memory");
  if (status.ok()) done.store(true, std::memory_order_release);
  return status;
}

PerImage per_image(const MatrixView& view) {
  return {static_cast<const uint16_t*>(view.data), view.row_stride};
}

}  // namespace

Status norm_modulate_prune_compress(const MatrixView& x, const MutableCompressedView& out,
                                    const NormModulateOptions& options, Stream stream) {
  const Result<NormModulatePlan> plan = plan_norm_modulate(x, out, options);
  if (!plan.ok()) return plan.status();
  if (Status status = check_device(); !status.ok()) return status;
  const int kernel = (options.norm == Norm::kLayerNorm ? 2 : 0) + (options.weight.data != nullptr ? 1 : 0);
  if (Status status = allow_shared_memory(kernel); !status.ok()) return status;
  NormModulateArguments args{};
  args.x = static_cast<const uint16_t*>(x.data);
  args.row_stride = x.row_stride;
  args.weight = static_cast<const uint16_t*>(options.weight.data);
  args.modulation_scale = per_image(options.scale);
  args.modulation_shift = per_image(options.shift);
  args.tokens_per_image = static_cast<int>(plan.value().tokens_per_image);
  args.eps = options.eps;
  args.m = static_cast<int>(out.m);
  args.k = static_cast<int>(out.k);
  args.blocks = static_cast<uint8_t*>(out.blocks);
  args.scale = out.scale;
  args.dense = static_cast<uint16_t*>(options.dense.data);
  args.dense_stride = options.dense.row_stride;
  kKernels[kernel]<<<static_cast<unsigned>(plan.value().ctas), 32 * kNormWarps,
                     static_cast<std::size_t>(norm_shared_bytes(args.k)), stream>>>(args);
  return cuda_status(cudaGetLastError(), "norm_modulate_prune_compress: launch");
}

}  // namespace rtlynx::sm90a
