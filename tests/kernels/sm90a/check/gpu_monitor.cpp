#include "gpu_monitor.h"

#include <dlfcn.h>

namespace rtlynx::check {
namespace {

constexpr unsigned kSmClock = 1;

template <class Function>
Function find(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

// The library is loaded by hand, so that the program also starts where no driver is installed, to say just that.
GpuMonitor::GpuMonitor() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
  if (library_ == nullptr) return;
  const auto init = find<int (*)()>(library_, "nvmlInit_v2");
  const auto handle = find<int (*)(unsigned, void**)>(library_, "nvmlDeviceGetHandleByIndex_v2");
  if (init == nullptr || handle == nullptr || init() != 0 || handle(0, &device_) != 0) device_ = nullptr;
}

GpuMonitor::Sample GpuMonitor::sample() const {
  Sample sample;
  if (device_ == nullptr) return sample;
  const auto clock = find<int (*)(void*, unsigned, unsigned*)>(library_, "nvmlDeviceGetClockInfo");
  const auto power = find<int (*)(void*, unsigned*)>(library_, "nvmlDeviceGetPowerUsage");
  const auto limits = find<int (*)(void*, unsigned long long*)>(library_, "nvmlDeviceGetCurrentClocksThrottleReasons");
  unsigned milliwatts = 0;
  if (clock != nullptr) clock(device_, kSmClock, &sample.sm_mhz);
  if (power != nullptr && power(device_, &milliwatts) == 0) sample.watts = milliwatts / 1000.0;
  if (limits != nullptr) limits(device_, &sample.limits);
  return sample;
}

}  // namespace rtlynx::check
