#include "kernels/workspace.h"

#include <fmt/format.h>

#include "core/alloc.h"
#include "rtlynx/backend.h"

namespace rtlynx {

Workspace& Workspace::of_this_thread() {
  thread_local Workspace workspace;
  return workspace;
}

Workspace::~Workspace() {
  release();
}

Status Workspace::reserve(int64_t bytes) {
  used_ = 0;
  if (bytes <= size_) return {};
  release();
  data_ = static_cast<std::byte*>(allocate(static_cast<std::size_t>(bytes)));
  if (data_ == nullptr) {
    return {ErrorCode::kOutOfMemory, fmt::format("workspace: {} bytes could not be allocated", bytes)};
  }
  size_ = bytes;
  return {};
}

std::byte* Workspace::take(int64_t bytes) {
  std::byte* piece = data_ + used_;
  used_ += rounded(bytes);
  return piece;
}

void Workspace::release() {
  deallocate(data_);
  data_ = nullptr;
  size_ = used_ = 0;
}

void release_thread_workspace() {
  Workspace::of_this_thread().release();
}

void BufferDeleter::operator()(std::byte* bytes) const {
  deallocate(bytes);
}

}  // namespace rtlynx
