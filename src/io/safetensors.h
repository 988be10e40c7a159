#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/filesystem.h"
#include "rtlynx/tensor_view.h"

namespace rtlynx::io {

/// One tensor of a safetensors file: where its bytes lie, from the start of the file.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// A validated safetensors file, read by pread (never mapped). Throws Error with the exact code.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path, OpenMode mode = OpenMode::kRead);

  const std::filesystem::path& path() const;
  /// In the order of their bytes.
  const std::vector<TensorInfo>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  /// nullptr where the file has no such tensor.
  const TensorInfo* find(std::string_view name) const;
  /// Copies the tensor's bytes; `destination` must be exactly end - begin bytes. Thread-safe.
  void read(const TensorInfo& tensor, std::span<std::byte> destination) const;
  /// The tensor's bytes from `offset` on, for reading in pieces; offset + destination.size() must not pass its end.
  void read_part(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> destination) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

/// The weights of one component folder: `<stem>.safetensors`, or the shards that `<stem>.safetensors.index.json`
/// names, where stem is "diffusion_pytorch_model" or "model". Throws Error with the exact code.
class ComponentWeights {
 public:
  static ComponentWeights open(const std::filesystem::path& component_folder);

  /// Sorted by name.
  std::vector<std::string> names() const;
  /// The file and the entry of a tensor; nullptrs where there is none.
  std::pair<const SafetensorsFile*, const TensorInfo*> find(std::string_view name) const;
  uint64_t total_bytes() const;

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::pair<std::size_t, std::size_t>, std::less<>> index_;
};

/// A tensor to be written; `bytes` must outlive the call.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes temp file -> fsync -> rename -> fsync of the folder. Tensors are laid out by falling element size, then by
/// name; equal inputs give equal bytes. Throws Error(kWriteFailed) and leaves no partial file.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace rtlynx::io
