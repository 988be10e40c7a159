#pragma once

#include <string>

namespace rtlynx::check {

/// Clock, power and what limits the clock, from the driver's management library; all 0 where that is missing.
class GpuMonitor {
 public:
  GpuMonitor();

  struct Sample {
    unsigned sm_mhz = 0;
    double watts = 0;
    unsigned long long limits = 0;  ///< NVML's clock event reasons; 0x4 is the software power cap
  };
  Sample sample() const;

 private:
  void* library_ = nullptr;
  void* device_ = nullptr;
};

}  // namespace rtlynx::check
