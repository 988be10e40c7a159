#pragma once

#include <cuda_runtime_api.h>

#include "device_memory.h"

namespace rtlynx::check {

/// Queues `repeats` calls between two events of the default stream.
class Stopwatch {
 public:
  template <class Function>
  Stopwatch(int repeats, const Function& function) : repeats_(repeats) {
    require(cudaEventCreate(&start_), "event");
    require(cudaEventCreate(&stop_), "event");
    require(cudaEventRecord(start_), "event");
    for (int i = 0; i < repeats; ++i) function();
    require(cudaEventRecord(stop_), "event");
  }
  ~Stopwatch() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  /// Seconds of one call; waits for the device.
  double seconds() const {
    require(cudaEventSynchronize(stop_), "timed work");
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, start_, stop_), "elapsed time");
    return milliseconds / 1000.0 / repeats_;
  }

 private:
  int repeats_;
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

}  // namespace rtlynx::check
