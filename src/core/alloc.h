#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <utility>

#include "rtlynx/status.h"

namespace rtlynx {

/// A cache line, and enough for every vector load of AVX-512.
inline constexpr std::size_t kDefaultAlignment = 64;

/// The one host allocation seam: buffers whose size comes from a file, a shape or a user are taken here, so that tests
/// can make any of them fail. `alignment` is a power of two. Never throws; nullptr on failure. 0 bytes give a pointer
/// that must be released too. Thread-safe.
[[nodiscard]] void* allocate(std::size_t bytes, std::size_t alignment = kDefaultAlignment) noexcept;
void deallocate(void* pointer) noexcept;

/// For tests: the k-th allocation from now on (1 is the next one) fails, only that one or every later one too; k = 0
/// ends it. Process-wide.
void fail_allocation(int64_t k, bool and_all_later = false) noexcept;
/// Allocations made since the last fail_allocation(), failed ones included.
int64_t allocations_seen() noexcept;

/// Bytes of the allocation seam with an owner. Movable, not copyable; the contents start undefined.
class HostBuffer {
 public:
  HostBuffer() = default;
  /// kOutOfMemory names the size.
  static Result<HostBuffer> create(std::size_t bytes, std::size_t alignment = kDefaultAlignment);
  ~HostBuffer() { deallocate(data_); }
  HostBuffer(HostBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  HostBuffer& operator=(HostBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<std::byte> bytes() { return {data_, size_}; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Runs `body`, which throws; where the standard library finds no memory, that becomes Error(kOutOfMemory) with
/// `origin` in its message. For the entrances of the layers that read files.
template <class Body>
decltype(auto) or_out_of_memory(const std::string& origin, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kOutOfMemory, origin + ": not enough memory");
  }
}

}  // namespace rtlynx
