#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "core/filesystem.h"

namespace rtlynx {

/// An open regular file, read by position through the I/O seam. Movable; closes itself.
class ReadFile {
 public:
  /// Throws Error: kNotFound, kNotAFile (folder, device, FIFO), kReadFailed with the system's reason.
  static ReadFile open(const std::filesystem::path& path, OpenMode mode = OpenMode::kRead);
  ~ReadFile();
  ReadFile(ReadFile&& other) noexcept;
  ReadFile& operator=(ReadFile&& other) noexcept;

  /// Fills `destination` from byte `offset` on. Thread-safe. Throws Error: kReadFailed, or kFileChanged where the file
  /// ended early or was written to since it was opened.
  void read(uint64_t offset, std::span<std::byte> destination) const;

  const std::filesystem::path& path() const { return path_; }
  /// In bytes, when it was opened.
  uint64_t size() const { return stat_.size; }

 private:
  ReadFile(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  std::filesystem::path path_;
  int descriptor_ = -1;
  FileStat stat_;
};

/// The whole of a file of at most `max_bytes`. Throws Error as ReadFile does; kOutOfMemory where it is larger.
std::string read_whole_file(const std::filesystem::path& path, std::size_t max_bytes);

/// Receives the contents of a file that is being written.
class FileWriter {
 public:
  FileWriter(const std::filesystem::path& target, int descriptor) : target_(target), descriptor_(descriptor) {}
  /// Throws Error(kWriteFailed).
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

 private:
  const std::filesystem::path& target_;
  int descriptor_;
  uint64_t written_ = 0;
};

/// Writes a file so that at every moment, after a crash too, `path` names either what it named before or the complete
/// new file: a temporary file `.rtlynx-<pid>-<n>.tmp` beside it -> fsync -> rename -> fsync of the folder. `body`
/// writes the contents. On failure the temporary file is removed and what `path` named stays. Only a regular file is
/// ever replaced (kNotAFile otherwise: a device, a symbolic link). Throws Error(kWriteFailed) with the path and the
/// reason, and lets what `body` throws pass.
void write_atomically(const std::filesystem::path& path, const std::function<void(FileWriter&)>& body);
void write_atomically(const std::filesystem::path& path, std::string_view contents);

}  // namespace rtlynx
