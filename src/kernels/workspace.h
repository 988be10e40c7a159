#pragma once

#include <cstddef>
#include <cstdint>

#include "rtlynx/status.h"

namespace rtlynx {

/// Scratch memory of the calling thread that grows and is kept, because one call needs megabytes and fresh pages cost
/// more than pruning does. Requests are sized first, then taken piece by piece.
class Workspace {
 public:
  /// The calling thread's own.
  static Workspace& of_this_thread();
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// Room for `bytes` (as summed up with rounded()); forgets what was taken before. kOutOfMemory.
  Status reserve(int64_t bytes);
  /// The next piece, 64-byte aligned; only as much as was reserved.
  std::byte* take(int64_t bytes);
  void release();

  static int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  Workspace() = default;
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
  int64_t used_ = 0;
};

}  // namespace rtlynx
