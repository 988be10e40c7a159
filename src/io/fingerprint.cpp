#include <fmt/core.h>

#include <algorithm>

#include "core/alloc.h"
#include "core/hash64.h"
#include "io/adapter.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

constexpr std::size_t kPieceBytes = 8u << 20;

void hash_description(const TensorInfo& tensor, Hash64& hash) {
  constexpr std::string_view kNul("\0", 1);
  hash.update(tensor.name);
  hash.update(kNul);
  hash.update(dtype_name(tensor.dtype));
  hash.update(kNul);
  hash.update(uint64_t{tensor.shape.size()});
  for (const int64_t dimension : tensor.shape) hash.update(static_cast<uint64_t>(dimension));
}

}  // namespace

std::string fingerprint(const ComponentWeights& weights) {
  auto buffer = HostBuffer::create(kPieceBytes);
  throw_if_error(buffer.status());
  const std::span<std::byte> piece = buffer.value().bytes();
  Hash64 hash;
  for (const std::string& name : weights.names()) {
    const auto [file, tensor] = weights.find(name);
    hash_description(*tensor, hash);
    const uint64_t size = tensor->end - tensor->begin;
    for (uint64_t at = 0; at < size; at += kPieceBytes) {
      const auto part = piece.first(static_cast<std::size_t>(std::min<uint64_t>(kPieceBytes, size - at)));
      file->read_part(*tensor, at, part);
      hash.update(part);
    }
  }
  return hex16(hash.digest());
}

}  // namespace rtlynx::io
