#include "io/safetensors.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "core/alloc.h"
#include "core/file.h"
#include "io/safetensors_header.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

[[noreturn]] void refuse_pickle(const std::filesystem::path& path) {
  throw Error(ErrorCode::kPickleRefused,
              fmt::format("{}: a pickle can run code; convert it to .safetensors (save_pretrained writes that)",
                          path.string()));
}

/// A header length that cannot be: say so plainly where the file is a zip archive (torch.save) or a bare pickle of
/// protocol 2 to 5 under a safetensors name.
void refuse_renamed_pickle(const ReadFile& file, uint64_t first_bytes) {
  const bool is_zip = (first_bytes & 0xFFFFFFFF) == 0x04034B50;
  const uint64_t protocol = first_bytes >> 8 & 0xFF;
  const bool is_pickle = (first_bytes & 0xFF) == 0x80 && protocol >= 2 && protocol <= 5;
  if (is_zip || is_pickle) refuse_pickle(file.path());
}

/// The header's length, bounded by the format's cap and by the file before anything is allocated for it.
uint64_t read_header_length(const ReadFile& file) {
  const std::string path = file.path().string();
  if (file.size() < kSafetensorsLengthBytes) {
    throw Error(ErrorCode::kSafetensorsTooShort,
                fmt::format("{}: {} bytes, expected at least {}", path, file.size(), kSafetensorsLengthBytes));
  }
  std::array<std::byte, kSafetensorsLengthBytes> raw{};
  file.read(0, raw);
  uint64_t length = 0;
  for (std::size_t i = raw.size(); i-- > 0;) length = length << 8 | std::to_integer<uint64_t>(raw[i]);
  const bool too_long = length > file.size() - kSafetensorsLengthBytes;
  if (too_long || length > kSafetensorsMaxHeaderBytes) refuse_renamed_pickle(file, length);
  if (length > kSafetensorsMaxHeaderBytes) {
    throw Error(ErrorCode::kSafetensorsHeaderTooLarge, fmt::format("{}: byte 0: header of {} bytes, at most {} allowed",
                                                                   path, length, kSafetensorsMaxHeaderBytes));
  }
  if (too_long) {
    throw Error(ErrorCode::kSafetensorsHeaderPastEnd, fmt::format("{}: byte 0: header of {} bytes, only {} follow",
                                                                  path, length, file.size() - kSafetensorsLengthBytes));
  }
  return length;
}

SafetensorsHeader read_header(const ReadFile& file) {
  auto buffer = HostBuffer::create(read_header_length(file));
  if (!buffer.ok()) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("{}: header: {}", file.path().string(), buffer.status().message()));
  }
  const std::span<std::byte> bytes = buffer.value().bytes();
  file.read(kSafetensorsLengthBytes, bytes);
  return parse_safetensors_header({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.size(),
                                  file.path().string());
}

/// A checkpoint by another name than .safetensors is most often a pickle.
bool has_pickle_name(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  const auto same = [&](std::string_view refused) { return extension == refused; };
  return std::ranges::any_of(kPickleExtensions, same);
}

}  // namespace

struct SafetensorsFile::State {
  explicit State(ReadFile opened) : file(std::move(opened)), header(read_header(file)), by_name(header.tensors.size()) {
    std::iota(by_name.begin(), by_name.end(), 0u);
    std::sort(by_name.begin(), by_name.end(),
              [this](uint32_t a, uint32_t b) { return header.tensors[a].name < header.tensors[b].name; });
  }

  ReadFile file;
  SafetensorsHeader header;
  std::vector<uint32_t> by_name;
};

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path, OpenMode mode) {
  if (has_pickle_name(path)) refuse_pickle(path);
  return or_out_of_memory(path.string(), [&] {
    SafetensorsFile file;
    file.state_ = std::make_shared<const State>(ReadFile::open(path, mode));
    return file;
  });
}

const std::filesystem::path& SafetensorsFile::path() const {
  return state_->file.path();
}
const std::vector<TensorInfo>& SafetensorsFile::tensors() const {
  return state_->header.tensors;
}
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return state_->header.metadata;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto& tensors = state_->header.tensors;
  const auto found = std::lower_bound(state_->by_name.begin(), state_->by_name.end(), name,
                                      [&](uint32_t i, std::string_view wanted) { return tensors[i].name < wanted; });
  return found != state_->by_name.end() && tensors[*found].name == name ? &tensors[*found] : nullptr;
}

void SafetensorsFile::read(const TensorInfo& tensor, std::span<std::byte> destination) const {
  if (destination.size() != tensor.end - tensor.begin) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: tensor {}: a buffer of {} bytes for {}", path().string(), quote(tensor.name),
                            destination.size(), tensor.end - tensor.begin));
  }
  read_part(tensor, 0, destination);
}

void SafetensorsFile::read_part(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> destination) const {
  const uint64_t size = tensor.end - tensor.begin;
  if (offset > size || destination.size() > size - offset) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: tensor {}: {} bytes from {} on asked for, it has {}", path().string(),
                            quote(tensor.name), destination.size(), offset, size));
  }
  try {
    state_->file.read(tensor.begin + offset, destination);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{} (tensor {})", error.status().message(), quote(tensor.name)));
  }
}

}  // namespace rtlynx::io
