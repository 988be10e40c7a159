#include "core/file.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include "rtlynx/status.h"

namespace rtlynx {
namespace {

std::string reason(int64_t negative_errno) {
  return std::generic_category().message(static_cast<int>(-negative_errno));
}

[[noreturn]] void fail_write(const std::filesystem::path& path, std::string_view doing, int64_t code) {
  throw Error(ErrorCode::kWriteFailed, fmt::format("{}: cannot {}: {}", path.string(), doing, reason(code)));
}

/// The errors of close() on a descriptor that is only given up have no one to hear them.
void close_quietly(int descriptor) noexcept {
  std::ignore = FileSystem::current().close(descriptor);
}

}  // namespace

ReadFile ReadFile::open(const std::filesystem::path& path, OpenMode mode) {
  FileSystem& fs = FileSystem::current();
  int descriptor = 0;
  do {
    descriptor = fs.open(path.string(), mode);
  } while (descriptor == -EINTR);
  if (descriptor == -ENOENT || descriptor == -ENOTDIR) {
    throw Error(ErrorCode::kNotFound, fmt::format("{}: {}", path.string(), reason(descriptor)));
  }
  if (descriptor == -ENXIO) {  // a socket
    throw Error(ErrorCode::kNotAFile, fmt::format("{}: expected a regular file", path.string()));
  }
  if (descriptor < 0) {
    throw Error(ErrorCode::kReadFailed, fmt::format("{}: cannot open: {}", path.string(), reason(descriptor)));
  }
  ReadFile file(path, descriptor);
  if (const int code = fs.stat(descriptor, file.stat_); code < 0) {
    throw Error(ErrorCode::kReadFailed, fmt::format("{}: cannot get its size: {}", path.string(), reason(code)));
  }
  if (!file.stat_.is_regular) {
    throw Error(ErrorCode::kNotAFile, fmt::format("{}: expected a regular file, got a {}", path.string(),
                                                  file.stat_.is_folder ? "folder" : "device, FIFO or the like"));
  }
  return file;
}

ReadFile::~ReadFile() {
  if (descriptor_ >= 0) close_quietly(descriptor_);
}

ReadFile::ReadFile(ReadFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), stat_(other.stat_) {}

ReadFile& ReadFile::operator=(ReadFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(stat_, other.stat_);
  return *this;
}

void ReadFile::read(uint64_t offset, std::span<std::byte> destination) const {
  FileSystem& fs = FileSystem::current();
  std::size_t done = 0;
  while (done < destination.size()) {
    const int64_t got = fs.pread(descriptor_, destination.data() + done, destination.size() - done, offset + done);
    if (got == -EINTR) continue;
    if (got < 0) {
      throw Error(ErrorCode::kReadFailed,
                  fmt::format("{}: cannot read at byte {}: {}", path_.string(), offset + done, reason(got)));
    }
    if (got == 0) {
      throw Error(ErrorCode::kFileChanged, fmt::format("{}: ends at byte {}, but had {} bytes when it was opened",
                                                       path_.string(), offset + done, stat_.size));
    }
    done += static_cast<std::size_t>(got);
  }
  // The bytes are in memory by now; a change that came before this check may be among them, a later one is not.
  FileStat now;
  if (fs.stat(descriptor_, now) == 0 && (now.size != stat_.size || now.modified_ns != stat_.modified_ns)) {
    throw Error(ErrorCode::kFileChanged,
                fmt::format("{}: was written to while it was read (at byte {})", path_.string(), offset));
  }
}

std::string read_whole_file(const std::filesystem::path& path, std::size_t max_bytes) {
  const ReadFile file = ReadFile::open(path);
  if (file.size() > max_bytes) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("{}: {} bytes, at most {} are read", path.string(), file.size(), max_bytes));
  }
  std::string contents(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(contents)));
  return contents;
}

void FileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const int64_t got = FileSystem::current().write(descriptor_, bytes.data(), bytes.size());
    if (got == -EINTR) continue;
    if (got <= 0) {
      fail_write(target_, fmt::format("write {} bytes after byte {}", bytes.size(), written_), got == 0 ? -EIO : got);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    written_ += static_cast<uint64_t>(got);
  }
}

namespace {

/// A new file beside the target that removes itself unless it was renamed to the target.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target)
      : target_(target), folder_(target.has_parent_path() ? target.parent_path() : std::filesystem::path(".")) {
    // Unique in this process by the counter, among processes by the id; a file left by a killed process whose id came
    // round again is passed over.
    static std::atomic<uint64_t> counter{0};
    constexpr int kAttempts = 1000;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      path_ = (folder_ / fmt::format(".rtlynx-{}-{}.tmp", ::getpid(), ++counter)).string();
      descriptor_ = FileSystem::current().open(path_, OpenMode::kCreateNew);
      if (descriptor_ != -EEXIST && descriptor_ != -EINTR) break;
    }
    if (descriptor_ < 0) fail_write(target_, "create a temporary file beside it", descriptor_);
  }

  ~TemporaryFile() {
    if (descriptor_ >= 0) close_quietly(descriptor_);
    if (!renamed_) std::ignore = FileSystem::current().unlink(path_);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  int descriptor() const { return descriptor_; }

  void commit() {
    FileSystem& fs = FileSystem::current();
    int code = 0;
    do {
      code = fs.fsync(descriptor_);
    } while (code == -EINTR);
    if (code < 0) fail_write(target_, "flush", code);
    // Linux gives the descriptor up even when close() reports EINTR.
    code = fs.close(std::exchange(descriptor_, -1));
    if (code < 0 && code != -EINTR) fail_write(target_, "close", code);
    if (code = fs.rename(path_, target_.string()); code < 0) fail_write(target_, "rename the finished file", code);
    renamed_ = true;
    if (code = fs.fsync_folder(folder_.string()); code < 0) fail_write(target_, "flush the folder", code);
  }

 private:
  const std::filesystem::path& target_;
  std::filesystem::path folder_;
  std::string path_;
  int descriptor_ = -1;
  bool renamed_ = false;
};

/// Renaming over /dev/null or over a link would replace the device or the link itself.
void check_target(const std::filesystem::path& path) {
  FileStat existing;
  const int code = FileSystem::current().stat_link(path.string(), existing);
  if (code == -ENOENT) return;
  if (code < 0) fail_write(path, "look at what is there", code);
  if (!existing.is_regular) {
    throw Error(ErrorCode::kNotAFile,
                fmt::format("{}: cannot be written: it exists and is a {}, not a regular file", path.string(),
                            existing.is_folder ? "folder" : "symbolic link, device or the like"));
  }
}

}  // namespace

void write_atomically(const std::filesystem::path& path, const std::function<void(FileWriter&)>& body) {
  check_target(path);
  TemporaryFile temporary(path);
  FileWriter writer(path, temporary.descriptor());
  body(writer);
  temporary.commit();
}

void write_atomically(const std::filesystem::path& path, std::string_view contents) {
  write_atomically(path, [&](FileWriter& writer) { writer.write(contents); });
}

}  // namespace rtlynx
