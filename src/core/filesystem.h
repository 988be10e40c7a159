#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace rtlynx {

/// What the seam tells of a file.
struct FileStat {
  bool is_regular = false;
  bool is_folder = false;
  uint64_t size = 0;
  int64_t modified_ns = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
};

enum class OpenMode {
  kRead,          ///< an existing file; a symbolic link is followed
  kReadNoFollow,  ///< an existing file; fails with ELOOP where the last component is a symbolic link
  kCreateNew,     ///< for writing; fails with EEXIST where anything has that name
};

/// The one I/O seam: every byte that RT-Lynx reads from or writes to a file passes here. The default calls POSIX; tests
/// put a double in its place that fails the k-th call and keeps a journal. Calls return -errno on failure, may be
/// short or interrupted (-EINTR) like the system calls they stand for, and are thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  /// A descriptor >= 0. Never blocks on a FIFO.
  virtual int open(const std::string& path, OpenMode mode);
  virtual int close(int descriptor);
  virtual int64_t pread(int descriptor, void* destination, std::size_t bytes, uint64_t offset);
  virtual int64_t write(int descriptor, const void* source, std::size_t bytes);
  virtual int fsync(int descriptor);
  virtual int fsync_folder(const std::string& path);
  virtual int rename(const std::string& from, const std::string& to);
  virtual int unlink(const std::string& path);
  virtual int stat(int descriptor, FileStat& result);
  /// Of the name itself: a symbolic link is neither a regular file nor a folder.
  virtual int stat_link(const std::string& path, FileStat& result);
  /// The absolute path with every symbolic link resolved; all of it must exist.
  virtual int real_path(const std::string& path, std::string& result);

  /// What the process uses now.
  static FileSystem& current();
};

/// Puts `replacement` in place of the current FileSystem until the end of the scope. For tests; not to be used while
/// other threads do I/O.
class ScopedFileSystem {
 public:
  explicit ScopedFileSystem(FileSystem& replacement);
  ~ScopedFileSystem();
  ScopedFileSystem(const ScopedFileSystem&) = delete;
  ScopedFileSystem& operator=(const ScopedFileSystem&) = delete;

 private:
  FileSystem* previous_;
};

}  // namespace rtlynx
