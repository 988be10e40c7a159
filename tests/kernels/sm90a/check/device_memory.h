#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../oracle.h"
#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"

/// Device memory for sm90a_check. Failures throw: the program has nothing to go on with.
namespace rtlynx::check {

inline void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}
inline void require(const Status& status) {
  if (!status.ok()) throw std::runtime_error(status.to_string());
}

/// Waits for the default stream. A kernel that waits for itself would hang the program and lose what it has found:
/// after 20 seconds the program says where it stands and ends at once.
inline void wait_for_device(const std::string& what) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (cudaStreamQuery(nullptr) == cudaErrorNotReady) {
    if (std::chrono::steady_clock::now() < deadline) continue;
    std::printf("FAILED %s: still running after 20 s\n", what.c_str());
    std::fflush(stdout);
    std::_Exit(1);
  }
  require(cudaDeviceSynchronize(), what.c_str());
}

/// Owned device bytes between two red zones of 4 KiB.
class DeviceBytes {
 public:
  static constexpr std::size_t kZone = 4096;
  static constexpr uint8_t kPoison = 0xa5;

  explicit DeviceBytes(std::size_t bytes) : bytes_(bytes) {
    require(cudaMalloc(&base_, bytes + 2 * kZone), "cudaMalloc");
    require(cudaMemset(base_, kPoison, bytes + 2 * kZone), "cudaMemset");
  }
  ~DeviceBytes() { cudaFree(base_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  void* data() const { return static_cast<uint8_t*>(base_) + kZone; }
  std::size_t size() const { return bytes_; }
  void upload(const void* host, std::size_t bytes) {
    require(cudaMemcpy(data(), host, bytes, cudaMemcpyHostToDevice), "upload");
  }
  /// The bytes with their zones.
  std::vector<uint8_t> download_all() const {
    std::vector<uint8_t> host(bytes_ + 2 * kZone);
    require(cudaMemcpy(host.data(), base_, host.size(), cudaMemcpyDeviceToHost), "download");
    return host;
  }

 private:
  void* base_ = nullptr;
  std::size_t bytes_;
};

/// A bf16 matrix whose rows are `padding` elements further apart than they are long.
class DeviceMatrix {
 public:
  DeviceMatrix(int64_t rows, int64_t cols, int64_t padding = 0)
      : rows_(rows), cols_(cols), stride_(cols + padding), bytes_(static_cast<std::size_t>(rows * stride_ * 2)) {}
  DeviceMatrix(const test::HostMatrix& host, int64_t padding = 0) : DeviceMatrix(host.rows, host.cols, padding) {
    const auto width = static_cast<std::size_t>(cols_) * 2;
    require(cudaMemcpy2D(bytes_.data(), static_cast<std::size_t>(stride_) * 2, host.bits.data(), width, width,
                         static_cast<std::size_t>(rows_), cudaMemcpyHostToDevice),
            "upload");
  }

  uint16_t* data() const { return static_cast<uint16_t*>(bytes_.data()); }
  MatrixView view() const { return {data(), rows_, cols_, stride_, DType::kBF16}; }
  MutableMatrixView mutable_view() { return {data(), rows_, cols_, stride_, DType::kBF16}; }

  /// The elements; throws if anything outside of them is no longer the poison it was.
  test::HostMatrix download(const char* name) const {
    const std::vector<uint8_t> all = bytes_.download_all();
    const auto check_poison = [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        if (all[i] != DeviceBytes::kPoison)
          throw std::runtime_error(std::string(name) + ": written outside of its elements");
      }
    };
    test::HostMatrix host{rows_, cols_, std::vector<uint16_t>(static_cast<std::size_t>(rows_ * cols_))};
    const auto width = static_cast<std::size_t>(cols_) * 2, stride = static_cast<std::size_t>(stride_) * 2;
    check_poison(0, DeviceBytes::kZone);
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows_); ++row) {
      const std::size_t begin = DeviceBytes::kZone + row * stride;
      std::memcpy(&host.bits[row * static_cast<std::size_t>(cols_)], &all[begin], width);
      check_poison(begin + width, begin + stride);
    }
    check_poison(all.size() - DeviceBytes::kZone, all.size());
    return host;
  }

 private:
  int64_t rows_, cols_, stride_;
  DeviceBytes bytes_;
};

}  // namespace rtlynx::check
