#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <set>
#include <system_error>

#include "core/alloc.h"
#include "io/confine.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/safetensors_header.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

// FLUX.1-dev's largest component has 3 shards; each keeps a descriptor open, of which a process has 1,024 by default.
constexpr std::size_t kMaxShards = 512;
constexpr std::string_view kStems[] = {"diffusion_pytorch_model", "model"};

/// What `<stem>.safetensors.index.json` says.
struct ShardIndex {
  std::string origin;
  std::map<std::string, std::string> file_of;  ///< tensor -> plain file name
  std::set<std::string> files;
  std::optional<uint64_t> total_size;
};

[[noreturn]] void malformed(const std::string& origin, std::string_view what) {
  throw Error(ErrorCode::kIndexMalformed, fmt::format("{}: {}", origin, what));
}

/// Some writers put the size down as 123.0; exact in a double up to 2^53.
std::optional<uint64_t> read_total_size(const nlohmann::json& metadata, const std::string& origin) {
  if (!metadata.is_object() || !metadata.contains("total_size")) return std::nullopt;
  const nlohmann::json& size = metadata["total_size"];
  if (size.is_number_unsigned()) return size.get<uint64_t>();
  constexpr double kExact = 9007199254740992.0;
  const double number = size.is_number_float() ? size.get<double>() : -1.0;
  if (!(number >= 0.0 && number <= kExact)) malformed(origin, "metadata.total_size: expected an unsigned integer");
  return static_cast<uint64_t>(number);
}

ShardIndex read_index(const std::filesystem::path& path) {
  ShardIndex index;
  index.origin = path.string();
  const nlohmann::json value = read_json(path);
  if (!value.is_object() || !value.contains("weight_map") || !value["weight_map"].is_object()) {
    malformed(index.origin, "expected an object with a weight_map of tensor names to file names");
  }
  for (const auto& [tensor, file] : value["weight_map"].items()) {
    if (!file.is_string()) malformed(index.origin, fmt::format("weight_map {}: expected a file name", quote(tensor)));
    index.file_of[tensor] = file.get<std::string>();
    index.files.insert(file.get<std::string>());
  }
  if (index.files.size() > kMaxShards) {
    malformed(index.origin, fmt::format("{} files, at most {} allowed", index.files.size(), kMaxShards));
  }
  if (value.contains("metadata")) index.total_size = read_total_size(value["metadata"], index.origin);
  return index;
}

std::vector<SafetensorsFile> open_shards(const std::filesystem::path& folder, const ShardIndex& index) {
  std::vector<SafetensorsFile> files;
  for (const std::string& name : index.files) {
    const std::filesystem::path path = confined_path(folder, name);
    if (!path_exists(path)) {
      throw Error(ErrorCode::kShardMissing,
                  fmt::format("{}: names {}, which the folder lacks", index.origin, quote(name)));
    }
    files.push_back(SafetensorsFile::open(path, OpenMode::kReadNoFollow));
  }
  return files;
}

/// Every tensor of the index in the shard it is said to be in, and no other one.
void check_against_index(const ShardIndex& index, const std::vector<SafetensorsFile>& files) {
  std::size_t shard = 0;
  for (const std::string& name : index.files) {
    for (const TensorInfo& tensor : files[shard].tensors()) {
      const auto listed = index.file_of.find(tensor.name);
      if (listed == index.file_of.end()) {
        throw Error(
            ErrorCode::kShardTensorUnlisted,
            fmt::format("{}: tensor {}: not in {}", files[shard].path().string(), quote(tensor.name), index.origin));
      }
      if (listed->second != name) {
        throw Error(ErrorCode::kShardDuplicateTensor,
                    fmt::format("{}: tensor {}: {} puts it into {}", files[shard].path().string(), quote(tensor.name),
                                index.origin, quote(listed->second)));
      }
    }
    ++shard;
  }
}

void check_present(const ShardIndex& index, const std::vector<SafetensorsFile>& files) {
  const std::vector<std::string> names(index.files.begin(), index.files.end());
  for (const auto& [tensor, file] : index.file_of) {
    const auto shard = static_cast<std::size_t>(std::lower_bound(names.begin(), names.end(), file) - names.begin());
    if (files[shard].find(tensor) == nullptr) {
      throw Error(ErrorCode::kShardTensorAbsent,
                  fmt::format("{}: tensor {}: not in {}, where {} puts it", files[shard].path().string(), quote(tensor),
                              quote(file), index.origin));
    }
  }
}

std::vector<SafetensorsFile> open_index(const std::filesystem::path& folder, const std::filesystem::path& path) {
  const ShardIndex index = read_index(path);
  std::vector<SafetensorsFile> files = open_shards(folder, index);
  check_present(index, files);
  check_against_index(index, files);
  uint64_t total = 0;
  for (const SafetensorsFile& file : files) {
    for (const TensorInfo& tensor : file.tensors()) total += tensor.end - tensor.begin;
  }
  if (index.total_size && *index.total_size != total) {
    throw Error(ErrorCode::kShardTotalSize,
                fmt::format("{}: total_size {}, the shards hold {} bytes", index.origin, *index.total_size, total));
  }
  return files;
}

/// Nothing to read: say why, and name the pickle where there is one.
[[noreturn]] void fail_without_weights(const std::filesystem::path& folder) {
  std::set<std::string> pickles;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const auto same = [&](std::string_view extension) { return entry.path().extension() == extension; };
    if (std::ranges::any_of(kPickleExtensions, same)) pickles.insert(entry.path().filename().string());
  }
  if (!pickles.empty()) {
    throw Error(ErrorCode::kPickleRefused,
                fmt::format("{}: a pickle can run code; convert it to .safetensors (save_pretrained writes that)",
                            (folder / *pickles.begin()).string()));
  }
  throw Error(ErrorCode::kNotFound, fmt::format("{}: neither {}.safetensors, {}.safetensors nor an index of shards",
                                                folder.string(), kStems[0], kStems[1]));
}

std::vector<SafetensorsFile> open_files(const std::filesystem::path& folder) {
  for (const std::string_view stem : kStems) {
    const auto index = confined_path(folder, fmt::format("{}.safetensors.index.json", stem));
    const auto single = confined_path(folder, fmt::format("{}.safetensors", stem));
    const bool has_index = path_exists(index);
    const bool has_single = path_exists(single);
    if (has_index && has_single) {
      malformed(index.string(), fmt::format("{}.safetensors stands beside it; remove one of them", stem));
    }
    if (has_index) return open_index(folder, index);
    if (has_single) {
      std::vector<SafetensorsFile> files;
      files.push_back(SafetensorsFile::open(single, OpenMode::kReadNoFollow));
      return files;
    }
  }
  fail_without_weights(folder);
}

}  // namespace

ComponentWeights ComponentWeights::open(const std::filesystem::path& component_folder) {
  return or_out_of_memory(component_folder.string(), [&] {
    ComponentWeights weights;
    weights.files_ = open_files(resolve_folder(component_folder));
    for (std::size_t file = 0; file < weights.files_.size(); ++file) {
      const auto& tensors = weights.files_[file].tensors();
      for (std::size_t i = 0; i < tensors.size(); ++i) weights.index_.emplace(tensors[i].name, std::pair(file, i));
    }
    return weights;
  });
}

std::vector<std::string> ComponentWeights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : index_) names.push_back(name);
  return names;
}

std::pair<const SafetensorsFile*, const TensorInfo*> ComponentWeights::find(std::string_view name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) return {nullptr, nullptr};
  const auto [file, tensor] = found->second;
  return {&files_[file], &files_[file].tensors()[tensor]};
}

uint64_t ComponentWeights::total_bytes() const {
  uint64_t total = 0;
  for (const auto& [name, place] : index_) {
    const TensorInfo& tensor = files_[place.first].tensors()[place.second];
    total += tensor.end - tensor.begin;
  }
  return total;
}

}  // namespace rtlynx::io
