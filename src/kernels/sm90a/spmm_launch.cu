#include <array>
#include <atomic>

#include "kernels/sm90a/checks.h"
#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/device.h"
#include "kernels/sm90a/spmm_kernel.cuh"
#include "kernels/sm90a/tensor_map.h"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {
namespace {

using Kernel = void (*)(SpmmMaps, SpmmArguments);
constexpr std::array<Kernel, kSpmmTileCount> kKernels = {spmm_kernel<0>, spmm_kernel<1>, spmm_kernel<2>};

/// A launch of `clusters` clusters, to be used while `attribute` lives.
cudaLaunchConfig_t launch_config(const SpmmTile& tile, int clusters, Stream stream, cudaLaunchAttribute& attribute) {
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {kClusterSize, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * kClusterSize));
  config.blockDim = dim3(static_cast<unsigned>(tile.threads()));
  config.dynamicSmemBytes = static_cast<std::size_t>(tile.shared_bytes());
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return config;
}

/// Allows the kernel its shared memory on this device and asks how many of its clusters run at once.
Result<int> prepare(int tile) {
  const auto* kernel = reinterpret_cast<const void*>(kKernels[static_cast<std::size_t>(tile)]);
  const Status allowed = cuda_status(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSpmmTiles[tile].shared_bytes()),
      "spmm: shared memory");
  if (!allowed.ok()) return allowed;
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = launch_config(kSpmmTiles[tile], 1, nullptr, attribute);
  int clusters = 0;
  const Status counted = cuda_status(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "spmm: occupancy");
  if (!counted.ok()) return counted;
  return clusters;
}

/// Prepares each tile's kernel once per device; later calls only read.
Status clusters_of_device(int (&clusters)[kSpmmTileCount]) {
  const Result<int> device = current_device();
  if (!device.ok()) return device.status();
  // 0: not asked yet; otherwise the number + 1. Two threads that ask at once store the same.
  static std::array<std::array<std::atomic<int>, kSpmmTileCount>, kMaxDevices> known{};
  for (int tile = 0; tile < kSpmmTileCount; ++tile) {
    std::atomic<int>& entry = known[static_cast<std::size_t>(device.value())][static_cast<std::size_t>(tile)];
    if (entry.load(std::memory_order_acquire) == 0) {
      const Result<int> count = prepare(tile);
      if (!count.ok()) return count.status();
      entry.store(count.value() + 1, std::memory_order_release);
    }
    clusters[tile] = entry.load(std::memory_order_acquire) - 1;
  }
  return {};
}

Status make_maps(const SpmmTile& tile, const MatrixView& w, const MutableMatrixView& d, const SpmmOptions& options,
                 SpmmMaps& maps) {
  const auto half_columns = static_cast<uint32_t>(tile.columns / kClusterSize);
  struct Request {
    CUtensorMap& map;
    const MatrixView view;
    uint32_t columns, rows;
    Swizzle swizzle;
  };
  const Request requests[] = {
      {maps.weight, w, kBlockK, half_columns, Swizzle::k128Bytes},
      {maps.output, read_only(d), kStoreColumns, 16, Swizzle::k128Bytes},
      {maps.lora_down, options.lora_down, kLoraStepColumns, static_cast<uint32_t>(tile.rows()), Swizzle::k64Bytes},
      {maps.lora_up, options.lora_up, kLoraStepColumns, half_columns, Swizzle::k64Bytes}};
  for (const Request& request : requests) {
    if (request.view.data == nullptr) continue;
    Status status = make_tensor_map(request.view, request.columns, request.rows, request.swizzle, request.map);
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace

Status spmm(const CompressedView& a, const MatrixView& w, const MutableMatrixView& d, const SpmmOptions& options,
            Stream stream) {
  if (Status status = check_spmm(a, w, d, options); !status.ok()) return status;
  if (Status status = check_device(); !status.ok()) return status;
  int clusters[kSpmmTileCount];
  if (Status status = clusters_of_device(clusters); !status.ok()) return status;
  const int64_t rank = options.lora_down.data == nullptr ? 0 : options.lora_down.cols;
  const Result<SpmmPlan> plan = plan_spmm(a.m, w.rows, a.k, rank, clusters, options.tile);
  if (!plan.ok()) return plan.status();

  const SpmmTile& tile = kSpmmTiles[plan.value().tile];
  SpmmMaps maps{};
  if (Status status = make_maps(tile, w, d, options, maps); !status.ok()) return status;
  SpmmArguments args{};
  args.blocks = static_cast<const uint8_t*>(a.blocks);
  args.scale = options.use_scale ? a.scale : nullptr;
  args.bias = static_cast<const uint16_t*>(options.bias.data);
  args.order = plan.value().order;
  args.m = static_cast<int>(a.m);
  args.n = static_cast<int>(w.rows);
  args.k_blocks = static_cast<int>(a.k / kBlockK);
  args.row_blocks = static_cast<int>((a.m + kBlockRows - 1) / kBlockRows);
  args.lora_steps = static_cast<int>((rank + kLoraStepColumns - 1) / kLoraStepColumns);
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = launch_config(tile, plan.value().clusters, stream, attribute);
  const Kernel kernel = kKernels[static_cast<std::size_t>(plan.value().tile)];
  return cuda_status(cudaLaunchKernelEx(&config, kernel, maps, args), "spmm: launch");
}

}  // namespace rtlynx::sm90a
