#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <string_view>
#include <tuple>

#include "core/checked.h"
#include "io/safetensors_header.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

std::string place(const std::string& origin, const TensorInfo& tensor, uint64_t header_byte) {
  return fmt::format("{}: tensor {}: header byte {}", origin, quote(tensor.name), header_byte);
}

void check_unique_names(const SafetensorsHeader& header, const std::vector<uint32_t>& name_ends,
                        const std::string& origin) {
  std::vector<uint32_t> order(header.tensors.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const int compared = header.tensors[a].name.compare(header.tensors[b].name);
    return compared != 0 ? compared < 0 : a < b;
  });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const TensorInfo& tensor = header.tensors[order[i]];
    if (tensor.name == header.tensors[order[i - 1]].name) {
      throw Error(ErrorCode::kSafetensorsDuplicateTensor,
                  fmt::format("{}: the same name as at byte {}", place(origin, tensor, name_ends[order[i]]),
                              name_ends[order[i - 1]]));
    }
  }
}

/// The tensor by itself: offsets in order and within the file, and as long as dtype and shape call for.
void check_span(const TensorInfo& tensor, uint64_t data_size, const std::string& where) {
  if (tensor.begin > tensor.end) {
    throw Error(ErrorCode::kSafetensorsOffsetsReversed,
                fmt::format("{}: begins at {} and ends at {}", where, tensor.begin, tensor.end));
  }
  const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes) throw Error(ErrorCode::kSafetensorsShapeOverflow, fmt::format("{}: shape passes 63 bits", where));
  if (*bytes != tensor.end - tensor.begin) {
    throw Error(ErrorCode::kSafetensorsSizeMismatch,
                fmt::format("{}: dtype and shape call for {} bytes, offsets [{}, {}] span {}", where, *bytes,
                            tensor.begin, tensor.end, tensor.end - tensor.begin));
  }
  if (tensor.end > data_size) {
    throw Error(ErrorCode::kSafetensorsPastEnd,
                fmt::format("{}: ends at data byte {}, the file has {}", where, tensor.end, data_size));
  }
}

/// The tensors, sorted by their bytes and counted from the start of the file, must tile [begin, end) exactly.
void check_tiling(const std::vector<TensorInfo>& tensors, uint64_t begin, uint64_t end, const std::string& origin) {
  uint64_t reached = begin;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin != reached) {
      throw Error(tensor.begin < reached ? ErrorCode::kSafetensorsOverlap : ErrorCode::kSafetensorsHole,
                  fmt::format("{}: tensor {}: begins at byte {}, the bytes before it end at {}", origin,
                              quote(tensor.name), tensor.begin, reached));
    }
    reached = tensor.end;
  }
  if (reached != end) {
    throw Error(ErrorCode::kSafetensorsTrailingBytes,
                fmt::format("{}: tensors end at byte {}, the file at {}", origin, reached, end));
  }
}

}  // namespace

void check_tensor_name(std::string_view name, const std::string& where) {
  const auto is_control = [&](std::size_t i) {
    const auto byte = static_cast<unsigned char>(name[i]);
    const bool c1 = byte == 0xC2 && i + 1 < name.size() && static_cast<unsigned char>(name[i + 1]) < 0xA0;
    return byte < 0x20 || byte == 0x7F || c1;
  };
  std::string_view problem;
  if (name.empty()) problem = "is empty";
  if (name.size() > kSafetensorsMaxNameBytes) problem = "has more than 1024 bytes";
  if (!is_utf8(name)) problem = "is not valid UTF-8";
  for (std::size_t i = 0; i < name.size() && problem.empty(); ++i) {
    if (is_control(i)) problem = "holds a control character";
  }
  if (!problem.empty()) {
    throw Error(ErrorCode::kSafetensorsName, fmt::format("{}: tensor name {} {}", where, quote(name), problem));
  }
}

std::optional<uint64_t> tensor_bytes(DType dtype, const std::vector<int64_t>& shape) {
  uint64_t non_zero = size_of(dtype);
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension < 0) return std::nullopt;
    if (dimension == 0) {
      empty = true;
      continue;
    }
    const auto product = checked_mul(non_zero, static_cast<uint64_t>(dimension));
    if (!product || *product > kSafetensorsMaxTensorBytes) return std::nullopt;
    non_zero = *product;
  }
  return empty ? 0 : non_zero;
}

void check_layout(SafetensorsHeader& header, const std::vector<uint32_t>& name_ends, uint64_t data_begin,
                  uint64_t file_size, const std::string& origin) {
  check_unique_names(header, name_ends, origin);
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    TensorInfo& tensor = header.tensors[i];
    check_span(tensor, file_size - data_begin, place(origin, tensor, name_ends[i]));
    tensor.begin += data_begin;
    tensor.end += data_begin;
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_tiling(header.tensors, data_begin, file_size, origin);
}

}  // namespace rtlynx::io
