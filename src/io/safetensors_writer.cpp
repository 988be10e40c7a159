#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/alloc.h"
#include "core/checked.h"
#include "core/file.h"
#include "io/safetensors.h"
#include "io/safetensors_header.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

void check_tensor(const TensorToWrite& tensor, const std::string& origin) {
  check_tensor_name(tensor.name, origin);
  if (tensor.name == "__metadata__") {
    throw Error(ErrorCode::kSafetensorsName, fmt::format("{}: tensor name \"__metadata__\" is reserved", origin));
  }
  const std::string where = fmt::format("{}: tensor {}", origin, quote(tensor.name));
  if (tensor.shape.size() > kSafetensorsMaxRank) {
    throw Error(ErrorCode::kSafetensorsRank,
                fmt::format("{}: {} dimensions, at most {} allowed", where, tensor.shape.size(), kSafetensorsMaxRank));
  }
  const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes) throw Error(ErrorCode::kSafetensorsShapeOverflow, fmt::format("{}: shape passes 63 bits", where));
  if (*bytes != tensor.bytes.size()) {
    throw Error(ErrorCode::kSafetensorsSizeMismatch,
                fmt::format("{}: dtype and shape call for {} bytes, got {}", where, *bytes, tensor.bytes.size()));
  }
}

/// The header's text, padded with spaces so that the data starts at a multiple of 8, as the format's own writer does.
std::string header_text(const std::vector<TensorToWrite>& tensors, const std::map<std::string, std::string>& metadata,
                        const std::string& origin) {
  // Scalars only: the destructors of nlohmann's arrays and objects allocate, and end the process where they cannot.
  const auto quoted = [](const std::string& value) { return nlohmann::json(value).dump(); };
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      text += fmt::format("{}{}:{}", text.ends_with('{') ? "" : ",", quoted(key), quoted(value));
    }
    text += "}";
  }
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const auto end = checked_add<uint64_t>(offset, tensor.bytes.size());
    if (!end) throw Error(ErrorCode::kOverflow, fmt::format("{}: more than 64 bits of data", origin));
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", text.size() > 1 ? "," : "",
                        quoted(tensor.name), dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), offset, *end);
    offset = *end;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kSafetensorsMaxHeaderBytes) {
    throw Error(ErrorCode::kSafetensorsHeaderTooLarge, fmt::format("{}: header of {} bytes, at most {} allowed", origin,
                                                                   text.size(), kSafetensorsMaxHeaderBytes));
  }
  return text;
}

std::string length_prefix(uint64_t length) {
  std::string prefix;
  for (int i = 0; i < 8; ++i) prefix += static_cast<char>(length >> (8 * i) & 0xFF);
  return prefix;
}

void write_checked(const std::filesystem::path& path, std::vector<TensorToWrite>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  const std::string origin = path.string();
  // Falling element size keeps every tensor aligned to its own element.
  std::sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    return std::pair(size_of(b.dtype), std::string_view(a.name)) <
           std::pair(size_of(a.dtype), std::string_view(b.name));
  });
  std::vector<std::string_view> names;
  for (const TensorToWrite& tensor : tensors) {
    check_tensor(tensor, origin);
    names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    throw Error(ErrorCode::kSafetensorsDuplicateTensor, fmt::format("{}: two tensors {}", origin, quote(*twice)));
  }
  for (const auto& [key, value] : metadata) {
    if (!is_utf8(key) || !is_utf8(value)) {
      throw Error(ErrorCode::kSafetensorsMetadata, fmt::format("{}: metadata {} is not UTF-8", origin, quote(key)));
    }
  }
  const std::string header = header_text(tensors, metadata, origin);
  write_atomically(path, [&](FileWriter& writer) {
    writer.write(length_prefix(header.size()));
    writer.write(header);
    for (const TensorToWrite& tensor : tensors) writer.write(tensor.bytes);
  });
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  or_out_of_memory(path.string(), [&] { write_checked(path, tensors, metadata); });
}

}  // namespace rtlynx::io
