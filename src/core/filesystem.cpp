#include "core/filesystem.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace rtlynx {
namespace {

// Linux transfers at most 0x7ffff000 bytes a call; 1 GiB keeps well below and is a multiple of every page size.
constexpr std::size_t kMostPerCall = std::size_t{1} << 30;

FileSystem g_posix;
std::atomic<FileSystem*> g_current{&g_posix};

template <class T>
T or_errno(T result) {
  return result < 0 ? static_cast<T>(-errno) : result;
}

void fill(const struct ::stat& from, FileStat& to) {
  to.is_regular = S_ISREG(from.st_mode);
  to.is_folder = S_ISDIR(from.st_mode);
  to.size = static_cast<uint64_t>(from.st_size);
  to.modified_ns = int64_t{from.st_mtim.tv_sec} * 1'000'000'000 + from.st_mtim.tv_nsec;
  to.device = from.st_dev;
  to.inode = from.st_ino;
}

int open_flags(OpenMode mode) {
  // O_NONBLOCK: opening a FIFO without a writer would hang for ever; it changes nothing for regular files.
  constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  switch (mode) {
    case OpenMode::kRead: return kReadFlags;
    case OpenMode::kReadNoFollow: return kReadFlags | O_NOFOLLOW;
    case OpenMode::kCreateNew: return O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  }
  return kReadFlags;
}

}  // namespace

int FileSystem::open(const std::string& path, OpenMode mode) {
  constexpr mode_t kPermissions = 0666;  // less the user's umask
  return or_errno(::open(path.c_str(), open_flags(mode), kPermissions));
}

int FileSystem::close(int descriptor) {
  return or_errno(::close(descriptor));
}

int64_t FileSystem::pread(int descriptor, void* destination, std::size_t bytes, uint64_t offset) {
  return or_errno(int64_t{::pread(descriptor, destination, std::min(bytes, kMostPerCall), static_cast<off_t>(offset))});
}

int64_t FileSystem::write(int descriptor, const void* source, std::size_t bytes) {
  return or_errno(int64_t{::write(descriptor, source, std::min(bytes, kMostPerCall))});
}

int FileSystem::fsync(int descriptor) {
  return or_errno(::fsync(descriptor));
}

int FileSystem::fsync_folder(const std::string& path) {
  const int folder = or_errno(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder < 0) return folder;
  const int result = or_errno(::fsync(folder));
  ::close(folder);
  // Some file systems cannot flush a folder and say EINVAL; there is nothing more that one could do on them.
  return result == -EINVAL ? 0 : result;
}

int FileSystem::rename(const std::string& from, const std::string& to) {
  return or_errno(std::rename(from.c_str(), to.c_str()));
}

int FileSystem::unlink(const std::string& path) {
  return or_errno(::unlink(path.c_str()));
}

int FileSystem::stat(int descriptor, FileStat& result) {
  struct ::stat status {};
  const int code = or_errno(::fstat(descriptor, &status));
  if (code == 0) fill(status, result);
  return code;
}

int FileSystem::stat_link(const std::string& path, FileStat& result) {
  struct ::stat status {};
  const int code = or_errno(::lstat(path.c_str(), &status));
  if (code == 0) fill(status, result);
  return code;
}

int FileSystem::real_path(const std::string& path, std::string& result) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr), &std::free);
  if (!resolved) return -errno;
  result = resolved.get();
  return 0;
}

FileSystem& FileSystem::current() {
  return *g_current.load();
}

ScopedFileSystem::ScopedFileSystem(FileSystem& replacement) : previous_(g_current.exchange(&replacement)) {}

ScopedFileSystem::~ScopedFileSystem() {
  g_current.store(previous_);
}

}  // namespace rtlynx
