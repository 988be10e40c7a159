#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>

#include "rtlynx/tensor_view.h"

namespace rtlynx {

/// A safetensors file as torch's tensors, element types kept.
struct TensorFile {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads every tensor of the file to the CPU. Throws Error as io::SafetensorsFile does; kTensorDType for types that
/// write_tensor_file does not write.
TensorFile read_tensor_file(const std::filesystem::path& path);

/// Writes tensors of any device and strides, atomically; double, float, bfloat16, half, int64 and uint8. Equal contents
/// give equal bytes. Throws Error(kWriteFailed), Error(kTensorDType).
void write_tensor_file(const std::filesystem::path& path, const TensorFile& contents);

}  // namespace rtlynx
