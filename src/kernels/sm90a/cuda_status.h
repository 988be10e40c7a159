#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "rtlynx/status.h"

namespace rtlynx::sm90a {

/// kInternal with CUDA's name for the error; ok for cudaSuccess. `what` names operation and step.
inline Status cuda_status(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return {};
  return {ErrorCode::kInternal,
          what + ": " + std::string(cudaGetErrorName(error)) + " (" + std::string(cudaGetErrorString(error)) + ")"};
}

}  // namespace rtlynx::sm90a
