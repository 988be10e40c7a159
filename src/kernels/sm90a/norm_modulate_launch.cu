#include <algorithm>
#include <atomic>
#include <bit>

#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/device.h"
#include "kernels/sm90a/norm_modulate_kernel.cuh"
#include "kernels/sm90a/prune_lora_config.h"
#include "kernels/sm90a/spmm_config.h"
#include "kernels/sm90a/tensor_map.h"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {
namespace {

using Kernel = void (*)(NormModulateMaps, NormModulateArguments);

constexpr Kernel kKernels[] = {norm_modulate_kernel<0>, norm_modulate_kernel<32>, norm_modulate_kernel<64>,
                               norm_modulate_kernel<128>};

int kernel_of(int columns) {
  return columns == 0 ? 0 : columns == 32 ? 1 : columns == 64 ? 2 : 3;
}

/// A launch of `clusters` clusters, to be used while `attribute` lives.
cudaLaunchConfig_t launch_config(const NormModulatePlan& plan, int clusters, Stream stream,
                                 cudaLaunchAttribute& attribute) {
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(plan.ctas), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * plan.ctas));
  config.blockDim = dim3(kNormThreads);
  config.dynamicSmemBytes = static_cast<std::size_t>(plan.memory.bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return config;
}

/// How many clusters run at once, asked once per device, kernel and cluster size: registers allow one CTA a
/// multiprocessor, whatever its shared memory.
Result<int> resident_clusters(const NormModulatePlan& plan, int kernel) {
  static std::atomic<int> known[kMaxDevices][4][kMaxNormCluster + 1];
  const Result<int> device = current_device();
  if (!device.ok()) return device.status();
  std::atomic<int>& entry = known[device.value()][kernel][plan.ctas];
  if (const int count = entry.load(std::memory_order_acquire); count > 0) return count;
  const auto* function = reinterpret_cast<const void*>(kKernels[kernel]);
  const Status allowed =
      cuda_status(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytesLimit),
                  "norm_modulate_prune_compress: shared memory");
  if (!allowed.ok()) return allowed;
  NormModulatePlan largest = plan;
  largest.memory.bytes = kSharedBytesLimit;
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = launch_config(largest, 1, nullptr, attribute);
  int count = 0;
  const Status counted =
      cuda_status(cudaOccupancyMaxActiveClusters(&count, function, &config), "norm_modulate_prune_compress: occupancy");
  if (!counted.ok()) return counted;
  if (count < 1) return Status(ErrorCode::kUnsupported, "norm_modulate_prune_compress: no cluster fits on the device");
  entry.store(count, std::memory_order_release);
  return count;
}

PerImage per_image(const MatrixView& view) {
  return {static_cast<const uint16_t*>(view.data), view.row_stride};
}

NormModulateArguments arguments(const NormModulatePlan& plan, const MutableCompressedView& out,
                                const NormModulateOptions& options) {
  NormModulateArguments args{};
  args.weight = static_cast<const uint16_t*>(options.weight.data);
  args.modulation_scale = per_image(options.scale);
  args.modulation_shift = per_image(options.shift);
  args.tokens_per_image = static_cast<int>(plan.tokens_per_image);
  args.layer_norm = options.norm == Norm::kLayerNorm;
  args.eps = options.eps;
  args.one_over_k = 1.0f / static_cast<float>(plan.k);
  args.m = static_cast<int>(plan.m);
  args.k_blocks = static_cast<int>(plan.k / kBlockK);
  args.tiles = static_cast<int>(plan.tiles);
  args.one_image = plan.tokens_per_image == plan.m;
  args.log2_stages = std::countr_zero(static_cast<unsigned>(plan.stages));
  args.memory = plan.memory;
  args.blocks = static_cast<uint8_t*>(out.blocks);
  args.scale = out.scale;
  args.dense = static_cast<uint16_t*>(options.dense.data);
  args.dense_stride = options.dense.row_stride;
  args.t = static_cast<uint16_t*>(options.lora.t.data);
  args.t_stride = options.lora.t.row_stride;
  args.rank = static_cast<int>(options.lora.t.cols);
  return args;
}

}  // namespace

Status norm_modulate_prune_compress(const MatrixView& x, const MutableCompressedView& out,
                                    const NormModulateOptions& options, Stream stream) {
  const Result<NormModulatePlan> plan = plan_norm_modulate(x, out, options);
  if (!plan.ok()) return plan.status();
  if (Status status = check_device(); !status.ok()) return status;
  const int kernel = kernel_of(plan.value().columns);
  const Result<int> resident = resident_clusters(plan.value(), kernel);
  if (!resident.ok()) return resident.status();
  NormModulateMaps maps{};
  if (Status status = make_tensor_map(x, kBlockK, kNormRows, Swizzle::k128Bytes, maps.x); !status.ok()) return status;
  if (plan.value().columns > 0) {
    const auto columns = static_cast<uint32_t>(plan.value().columns);
    const Status status = make_tensor_map(options.lora.lora_a, kBlockK, columns, Swizzle::k128Bytes, maps.lora_a);
    if (!status.ok()) return status;
  }
  const int clusters = std::min(resident.value(), static_cast<int>(plan.value().tiles));
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = launch_config(plan.value(), clusters, stream, attribute);
  return cuda_status(cudaLaunchKernelEx(&config, kKernels[kernel], maps, arguments(plan.value(), out, options)),
                     "norm_modulate_prune_compress: launch");
}

}  // namespace rtlynx::sm90a
