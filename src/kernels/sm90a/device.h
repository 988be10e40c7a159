#pragma once

#include "rtlynx/status.h"

namespace rtlynx::sm90a {

/// Devices that per-device facts are kept for; the index is CUDA's device ordinal.
inline constexpr int kMaxDevices = 64;

/// The current device's ordinal, checked to be below kMaxDevices.
Result<int> current_device();

}  // namespace rtlynx::sm90a
