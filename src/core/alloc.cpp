#include "core/alloc.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "core/checked.h"

namespace rtlynx {
namespace {

std::atomic<int64_t> g_seen{0};
std::atomic<int64_t> g_fail_at{0};
std::atomic<bool> g_fail_later{false};

bool must_fail() noexcept {
  const int64_t count = g_seen.fetch_add(1, std::memory_order_relaxed) + 1;
  const int64_t fail_at = g_fail_at.load(std::memory_order_relaxed);
  return fail_at > 0 && (count == fail_at || (count > fail_at && g_fail_later.load(std::memory_order_relaxed)));
}

}  // namespace

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (must_fail()) return nullptr;
  // aligned_alloc wants a multiple of the alignment; the padding itself may overflow.
  const auto padded = checked_round_up(std::max<std::size_t>(bytes, 1), alignment);
  return padded ? std::aligned_alloc(alignment, *padded) : nullptr;
}

void deallocate(void* pointer) noexcept {
  std::free(pointer);
}

void fail_allocation(int64_t k, bool and_all_later) noexcept {
  g_fail_at.store(k);
  g_fail_later.store(and_all_later);
  g_seen.store(0);
}

int64_t allocations_seen() noexcept {
  return g_seen.load();
}

Result<HostBuffer> HostBuffer::create(std::size_t bytes, std::size_t alignment) {
  HostBuffer buffer;
  buffer.data_ = static_cast<std::byte*>(allocate(bytes, alignment));
  if (buffer.data_ == nullptr) return Status(ErrorCode::kOutOfMemory, fmt::format("no memory for {} bytes", bytes));
  buffer.size_ = bytes;
  return Result<HostBuffer>(std::move(buffer));
}

}  // namespace rtlynx
