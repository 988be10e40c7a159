#include "kernels/sm90a/device.h"

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <string>

#include "kernels/sm90a/cuda_status.h"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {

Result<int> current_device() {
  int device = 0;
  if (Status status = cuda_status(cudaGetDevice(&device), "current device"); !status.ok()) return status;
  if (device < kMaxDevices) return device;
  return Status(ErrorCode::kUnsupported, "the Hopper kernels know devices 0.." + std::to_string(kMaxDevices - 1) +
                                             " (got device " + std::to_string(device) + ")");
}

Status check_device() {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
    cudaGetLastError();
    return {ErrorCode::kUnsupported, std::string("no CUDA device can be used (") +
                                         (error == cudaSuccess ? "none found" : cudaGetErrorString(error)) + ")"};
  }
  const Result<int> device = current_device();
  if (!device.ok()) return device.status();
  static std::array<std::atomic<bool>, kMaxDevices> known_good{};
  auto& good = known_good[static_cast<std::size_t>(device.value())];
  if (good.load(std::memory_order_relaxed)) return {};
  int major = 0, minor = 0;
  for (const auto& [value, attribute] :
       {std::pair{&major, cudaDevAttrComputeCapabilityMajor}, std::pair{&minor, cudaDevAttrComputeCapabilityMinor}}) {
    Status status = cuda_status(cudaDeviceGetAttribute(value, attribute, device.value()), "compute capability");
    if (!status.ok()) return status;
  }
  if (major != 9 || minor != 0) {
    return {ErrorCode::kUnsupported, "the Hopper kernels need compute capability 9.0 (device " +
                                         std::to_string(device.value()) + " has " + std::to_string(major) + "." +
                                         std::to_string(minor) + ")"};
  }
  good.store(true, std::memory_order_relaxed);
  return {};
}

}  // namespace rtlynx::sm90a
