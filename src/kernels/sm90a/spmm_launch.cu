#include <array>
#include <atomic>

#include "kernels/sm90a/checks.h"
#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/device.h"
#include "kernels/sm90a/layout_fp8.h"
#include "kernels/sm90a/spmm_arguments.h"
#include "kernels/sm90a/tensor_map.h"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {
namespace {

/// Null for what no call asks for.
SpmmKernel kernel_of(Format format, Epilogue epilogue, int tile) {
  if (format == Format::kFp8) {
    switch (epilogue) {
      case Epilogue::kDense: return spmm_kernel_of<Epilogue::kDense, Format::kFp8>(tile);
      case Epilogue::kGelu: return spmm_kernel_of<Epilogue::kGelu, Format::kFp8>(tile);
      case Epilogue::kGatedResidual: return spmm_kernel_of<Epilogue::kGatedResidual, Format::kFp8>(tile);
      default: return nullptr;
    }
  }
  switch (epilogue) {
    case Epilogue::kDense: return spmm_kernel_of<Epilogue::kDense>(tile);
    case Epilogue::kGelu: return spmm_kernel_of<Epilogue::kGelu>(tile);
    case Epilogue::kGatedResidual: return spmm_kernel_of<Epilogue::kGatedResidual>(tile);
    case Epilogue::kCompressed: return spmm_kernel_of<Epilogue::kCompressed>(tile);
    case Epilogue::kGeluCompressed: return spmm_kernel_of<Epilogue::kGeluCompressed>(tile);
  }
  return nullptr;
}

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

/// Allows the kernel its shared memory on this device and asks how many of its clusters run at once; 0 without a
/// kernel.
Result<int> prepare(Format format, Epilogue epilogue, int tile) {
  const auto* kernel = reinterpret_cast<const void*>(kernel_of(format, epilogue, tile));
  if (kernel == nullptr) return 0;
  const SpmmTile shape = with_epilogue(kSpmmTiles[tile], epilogue, format);
  const Status allowed =
      cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes()),
                  "spmm: shared memory");
  if (!allowed.ok()) return allowed;
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = launch_config(shape, 1, nullptr, attribute);
  int clusters = 0;
  const Status counted = cuda_status(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "spmm: occupancy");
  if (!counted.ok()) return counted;
  return clusters;
}

/// Prepares each tile's kernel once per device; later calls only read.
Status clusters_of_device(Format format, Epilogue epilogue, int (&clusters)[kSpmmTileCount]) {
  const Result<int> device = current_device();
  if (!device.ok()) return device.status();
  // 0: not asked yet; otherwise the number + 1. Two threads that ask at once store the same.
  static std::atomic<int> known[kMaxDevices][kFormatCount][kEpilogueCount][kSpmmTileCount];
  for (int tile = 0; tile < kSpmmTileCount; ++tile) {
    std::atomic<int>& entry = known[device.value()][static_cast<int>(format)][static_cast<int>(epilogue)][tile];
    if (entry.load(std::memory_order_acquire) == 0) {
      const Result<int> count = prepare(format, epilogue, tile);
      if (!count.ok()) return count.status();
      entry.store(count.value() + 1, std::memory_order_release);
    }
    clusters[tile] = entry.load(std::memory_order_acquire) - 1;
  }
  return {};
}

/// `d` is empty for compressed output.
Status make_maps(const SpmmTile& tile, const MatrixView& w, const MatrixView& d, const SpmmOptions& options,
                 SpmmMaps& maps) {
  const auto half_columns = static_cast<uint32_t>(tile.columns / kClusterSize);
  struct Request {
    CUtensorMap& map;
    const MatrixView view;
    uint32_t columns, rows;
    Swizzle swizzle;
  };
  const Request requests[] = {
      {maps.weight, w, static_cast<uint32_t>(2 * kBlockK / size_of(w.dtype)), half_columns, Swizzle::k128Bytes},
      {maps.output, d, kStoreColumns, 16, Swizzle::k128Bytes},
      {maps.residual, options.residual, kStoreColumns, 16, Swizzle::k128Bytes},
      {maps.lora_down, options.lora_down, kLoraStepColumns, static_cast<uint32_t>(tile.rows()), Swizzle::k64Bytes},
      {maps.lora_up, options.lora_up, kLoraStepColumns, half_columns, Swizzle::k64Bytes}};
  for (const Request& request : requests) {
    if (request.view.data == nullptr) continue;
    Status status = make_tensor_map(request.view, request.columns, request.rows, request.swizzle, request.map);
    if (!status.ok()) return status;
  }
  return {};
}

/// Plans and launches; the arguments have passed their check. `args` holds what the output needs. W's dtype says which
/// format `a` has.
Status launch(const CompressedView& a, const MatrixView& w, const MatrixView& d, const SpmmOptions& options,
              Epilogue epilogue, SpmmArguments args, Stream stream) {
  if (Status status = check_device(); !status.ok()) return status;
  int clusters[kSpmmTileCount];
  const Format format = w.dtype == DType::kBF16 ? Format::kBf16 : Format::kFp8;
  const int64_t step_k = format == Format::kBf16 ? kBlockK : kFp8BlockK;
  if (Status status = clusters_of_device(format, epilogue, clusters); !status.ok()) return status;
  const int64_t rank = options.lora_down.data == nullptr ? 0 : options.lora_down.cols;
  const Result<SpmmPlan> plan = plan_spmm(a.m, w.rows, a.k / step_k * kBlockK, rank, clusters, options.tile);
  if (!plan.ok()) return plan.status();

  const SpmmTile tile = with_epilogue(kSpmmTiles[plan.value().tile], epilogue, format);
  SpmmMaps maps{};
  if (Status status = make_maps(tile, w, d, options, maps); !status.ok()) return status;
  args.blocks = static_cast<const uint8_t*>(a.blocks);
  args.scale = options.use_scale ? a.scale : nullptr;
  args.bias = static_cast<const uint16_t*>(options.bias.data);
  args.order = plan.value().order;
  args.m = static_cast<int>(a.m);
  args.n = static_cast<int>(w.rows);
  args.k_blocks = static_cast<int>(a.k / step_k);
  args.row_blocks = static_cast<int>((a.m + kBlockRows - 1) / kBlockRows);
  args.lora_steps = static_cast<int>((rank + kLoraStepColumns - 1) / kLoraStepColumns);
#ifdef RTLYNX_SM90A_PHASES
  args.phases = spmm_phase_log();
#endif
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = launch_config(tile, plan.value().clusters, stream, attribute);
  return cuda_status(cudaLaunchKernelEx(&config, kernel_of(format, epilogue, plan.value().tile), maps, args),
                     "spmm: launch");
}

SpmmArguments gate_arguments(int64_t m, const SpmmOptions& options) {
  SpmmArguments args{};
  if (options.gate.data == nullptr) return args;
  args.gate = static_cast<const uint16_t*>(options.gate.data);
  args.gate_stride = options.gate.row_stride;
  args.tokens_per_image = static_cast<int>(m / options.gate.rows);
  return args;
}

}  // namespace

#ifdef RTLYNX_SM90A_PHASES
SpmmPhaseLog* spmm_phase_log() {
  static SpmmPhaseLog* const log = [] {
    void* memory = nullptr;
    if (cudaMalloc(&memory, sizeof(SpmmPhaseLog)) != cudaSuccess) return static_cast<SpmmPhaseLog*>(nullptr);
    cudaMemset(memory, 0, sizeof(SpmmPhaseLog));
    return static_cast<SpmmPhaseLog*>(memory);
  }();
  return log;
}
#endif

Status spmm(const CompressedView& a, const MatrixView& w, const MutableMatrixView& d, const SpmmOptions& options,
            Stream stream) {
  if (Status status = check_spmm(a, w, d, options); !status.ok()) return status;
  return launch(a, w, read_only(d), options, epilogue_of(options, false), gate_arguments(a.m, options), stream);
}

Status spmm_fp8(const CompressedFp8View& a, const Fp8Weight& w, const MutableMatrixView& d, const SpmmOptions& options,
                Stream stream) {
  if (Status status = check_spmm_fp8(a, w, d, options); !status.ok()) return status;
  SpmmArguments args = gate_arguments(a.m, options);
  args.column_factor = w.factor;
  return launch({a.blocks, a.factor, a.m, a.k}, w.values, read_only(d), options, epilogue_of(options, false), args,
                stream);
}

Status spmm_compress(const CompressedView& a, const MatrixView& w, const CompressedSlice& out,
                     const SpmmOptions& options, Stream stream) {
  if (Status status = check_spmm_compress(a, w, out, options); !status.ok()) return status;
  SpmmArguments args{};
  args.out_k_blocks = out.matrix.k / kBlockK;
  args.out_blocks =
      static_cast<uint8_t*>(out.matrix.blocks) + block_offset(0, out.k_offset / kBlockK, args.out_k_blocks);
  args.squares = reinterpret_cast<float2*>(out.squares) + out.k_offset / kSquaresColumns * a.m;
  return launch(a, w, {}, options, epilogue_of(options, true), args, stream);
}

}  // namespace rtlynx::sm90a
