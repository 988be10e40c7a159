#include "linear/tensor_file.h"

#include <fmt/format.h>

#include <array>
#include <span>
#include <utility>
#include <vector>

#include "io/safetensors.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

constexpr std::array<std::pair<DType, at::ScalarType>, 6> kTypes = {{{DType::kF64, at::kDouble},
                                                                     {DType::kF32, at::kFloat},
                                                                     {DType::kBF16, at::kBFloat16},
                                                                     {DType::kF16, at::kHalf},
                                                                     {DType::kI64, at::kLong},
                                                                     {DType::kU8, at::kByte}}};

at::ScalarType torch_type(const std::filesystem::path& path, const io::TensorInfo& info) {
  for (const auto& [dtype, type] : kTypes) {
    if (dtype == info.dtype) return type;
  }
  throw Error(ErrorCode::kTensorDType,
              fmt::format("{}: tensor {}: {} is not read here", path.string(), info.name, dtype_name(info.dtype)));
}

DType file_type(const std::filesystem::path& path, const std::string& name, const at::Tensor& tensor) {
  for (const auto& [dtype, type] : kTypes) {
    if (type == tensor.scalar_type()) return dtype;
  }
  throw Error(ErrorCode::kTensorDType, fmt::format("{}: tensor {}: {} is not written here", path.string(), name,
                                                   at::toString(tensor.scalar_type())));
}

}  // namespace

TensorFile read_tensor_file(const std::filesystem::path& path) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(path);
  TensorFile contents;
  contents.metadata = file.metadata();
  for (const io::TensorInfo& info : file.tensors()) {
    at::Tensor tensor = at::empty(info.shape, torch_type(path, info));
    file.read(info, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
    contents.tensors.emplace(info.name, std::move(tensor));
  }
  return contents;
}

void write_tensor_file(const std::filesystem::path& path, const TensorFile& contents) {
  std::vector<at::Tensor> held;
  std::vector<io::TensorToWrite> entries;
  for (const auto& [name, tensor] : contents.tensors) {
    held.push_back(tensor.cpu().contiguous());
    const at::Tensor& source = held.back();
    entries.push_back({name,
                       file_type(path, name, source),
                       source.sizes().vec(),
                       {static_cast<const std::byte*>(source.const_data_ptr()), source.nbytes()}});
  }
  io::write_safetensors(path, std::move(entries), contents.metadata);
}

}  // namespace rtlynx
