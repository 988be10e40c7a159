#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace rtlynx::io {

/// The bounds of what is read; each has its own error code.
inline constexpr uint64_t kSafetensorsMaxHeaderBytes = 100'000'000;
inline constexpr std::size_t kSafetensorsMaxTensors = 1'000'000;
inline constexpr std::size_t kSafetensorsMaxRank = 8;
inline constexpr std::size_t kSafetensorsMaxNameBytes = 1024;
inline constexpr std::size_t kSafetensorsMaxMetadataKeys = 65'536;
inline constexpr std::size_t kSafetensorsMaxDepth = 16;
inline constexpr uint64_t kSafetensorsMaxTensorBytes = (uint64_t{1} << 63) - 1;
/// The bytes before the header: its length, little-endian.
inline constexpr uint64_t kSafetensorsLengthBytes = 8;

/// Files that are never opened: kPickleRefused.
inline constexpr std::string_view kPickleExtensions[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};

struct SafetensorsHeader {
  /// In the order of their bytes; begin and end count from the start of the file.
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

/// Parses and validates the JSON header of a file of `file_size` bytes (at least 8 + text.size()). The tensors' bytes
/// must tile the rest of the file exactly: no hole, no overlap, nothing behind. Linear in memory, n log n in time.
/// `origin` names the file in messages; byte positions in messages count from the start of the file.
SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t file_size, const std::string& origin);

/// The second half of parse_safetensors_header: names are unique, every tensor is as long as dtype and shape call for,
/// and the bytes tile [data_begin, file_size). Takes offsets that count from data_begin, leaves them counting from the
/// start of the file, and sorts the tensors by them. `name_ends`: where each tensor's name ends in the file.
void check_layout(SafetensorsHeader& header, const std::vector<uint32_t>& name_ends, uint64_t data_begin,
                  uint64_t file_size, const std::string& origin);

/// Throws Error(kSafetensorsName) unless the name is 1 to 1,024 bytes of UTF-8 without control characters.
void check_tensor_name(std::string_view name, const std::string& where);

/// Bytes of a tensor; nothing where they, or the product of the non-zero dimensions, pass 63 bits.
std::optional<uint64_t> tensor_bytes(DType dtype, const std::vector<int64_t>& shape);

}  // namespace rtlynx::io
