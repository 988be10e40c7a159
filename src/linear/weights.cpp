#include "linear/weights.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "io/safetensors.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx {
namespace {

/// torch's element type of the same bytes; nothing for the unsigned integers that torch cannot compute with.
std::optional<at::ScalarType> scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kF64: return at::kDouble;
    case DType::kF32: return at::kFloat;
    case DType::kF16: return at::kHalf;
    case DType::kBF16: return at::kBFloat16;
    case DType::kF8E4M3: return at::kFloat8_e4m3fn;
    case DType::kF8E5M2: return at::kFloat8_e5m2;
    case DType::kI64: return at::kLong;
    case DType::kI32: return at::kInt;
    case DType::kI16: return at::kShort;
    case DType::kI8: return at::kChar;
    case DType::kU8: return at::kByte;
    case DType::kBool: return at::kBool;
    case DType::kU64:
    case DType::kU32:
    case DType::kU16: return std::nullopt;
  }
  return std::nullopt;
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += fmt::format("{}{}", text.size() > 1 ? ", " : "", size);
  return text + "]";
}

std::string place(const std::string& origin, std::string_view name) {
  return fmt::format("{}: tensor {}", origin, io::quote(name));
}

/// Reads one tensor into memory of its stored type, then moves it to where and what the model computes in.
at::Tensor load_tensor(const io::SafetensorsFile& file, const io::TensorInfo& info, const Placement& placement) {
  const auto stored = scalar_type(info.dtype);
  if (!stored) {
    throw Error(ErrorCode::kTensorDType, fmt::format("{}: {} is not an element type that a model can use",
                                                     place(file.path().string(), info.name), dtype_name(info.dtype)));
  }
  at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(*stored));
  file.read(info, {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()});
  const at::ScalarType wanted = at::isFloatingType(*stored) ? placement.dtype : *stored;
  return tensor.to(placement.device, wanted);
}

/// Whether an entry is the name, or ends in a dot and begins the name.
bool matches(const std::vector<std::string>& entries, std::string_view name) {
  return std::any_of(entries.begin(), entries.end(), [&](const std::string& entry) {
    return entry == name || (entry.ends_with('.') && name.starts_with(entry));
  });
}

}  // namespace

Weights Weights::load(const std::filesystem::path& component_folder, const Placement& placement,
                      const std::vector<std::string>& ignored) {
  const at::InferenceMode no_autograd;
  const auto files = io::ComponentWeights::open(component_folder);
  std::map<std::string, at::Tensor> tensors;
  for (std::string& name : files.names()) {
    if (matches(ignored, name)) continue;
    const auto [file, info] = files.find(name);
    try {
      tensors.emplace(std::move(name), load_tensor(*file, *info, placement));
    } catch (const c10::Error& error) {
      throw Error(ErrorCode::kOutOfMemory, fmt::format("{}: {} bytes: {}", place(file->path().string(), info->name),
                                                       info->end - info->begin, error.what_without_backtrace()));
    }
  }
  return {std::move(tensors), component_folder.string(), placement};
}

Weights::Weights(std::map<std::string, at::Tensor> tensors, std::string origin, const Placement& placement)
    : tensors_(std::move(tensors)), origin_(std::move(origin)), placement_(placement) {}

bool Weights::has(const std::string& name) const {
  return tensors_.contains(name);
}

at::Tensor Weights::take(const std::string& name, at::IntArrayRef shape) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    throw Error(ErrorCode::kTensorMissing,
                fmt::format("{}: the config calls for it, with shape {}", place(origin_, name), shape_text(shape)));
  }
  if (found->second.sizes() != shape) {
    throw Error(ErrorCode::kTensorShape, fmt::format("{}: expected shape {}, got {}", place(origin_, name),
                                                     shape_text(shape), shape_text(found->second.sizes())));
  }
  if (!found->second.is_floating_point()) {
    throw Error(ErrorCode::kTensorDType, fmt::format("{}: expected a floating-point type, got {}", place(origin_, name),
                                                     c10::toString(found->second.scalar_type())));
  }
  at::Tensor tensor = std::move(found->second);
  tensors_.erase(found);
  return tensor;
}

void Weights::finish(const std::vector<std::string>& ignored) const {
  constexpr std::size_t kNamed = 5;
  std::vector<std::string_view> left;
  for (const auto& [name, tensor] : tensors_) {
    if (!matches(ignored, name)) left.push_back(name);
  }
  if (left.empty()) return;
  std::string names;
  for (std::size_t i = 0; i < std::min(left.size(), kNamed); ++i) {
    names += fmt::format("{}{}", i == 0 ? "" : ", ", io::quote(left[i]));
  }
  throw Error(ErrorCode::kTensorUnexpected,
              fmt::format("{}: {} tensors that the config does not call for: {}{}", origin_, left.size(), names,
                          left.size() > kNamed ? ", ..." : ""));
}

}  // namespace rtlynx
