#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/filesystem.h"

namespace rtlynx::testing {

/// A FileSystem that passes its calls on to POSIX, keeps a journal of them and fails the k-th (1 is the first).
class FaultyFileSystem : public FileSystem {
 public:
  enum class Kind {
    kError,          ///< the call fails with `error`
    kShortTransfer,  ///< a pread or write moves half of the bytes (at least one); other calls do as always
  };
  struct Fault {
    int64_t at_call = 0;  ///< 0: none
    int error = EIO;
    bool and_all_later = false;
    Kind kind = Kind::kError;
  };
  struct Call {
    std::string what;  ///< "open", "write", ...
    std::string path;  ///< of the file; for rename where it comes from
    std::string to;    ///< of rename
  };

  FaultyFileSystem() = default;
  explicit FaultyFileSystem(Fault fault) : fault_(fault) {}

  const std::vector<Call>& journal() const { return journal_; }
  bool fired() const { return fired_; }

  int open(const std::string& path, OpenMode mode) override {
    if (step({mode == OpenMode::kCreateNew ? "create" : "open", path, ""})) return -fault_.error;
    const int descriptor = FileSystem::open(path, mode);
    const std::lock_guard lock(mutex_);
    if (descriptor >= 0) paths_[descriptor] = path;
    return descriptor;
  }
  int close(int descriptor) override {
    const bool fail = step({"close", path_of(descriptor), ""});
    const int code = FileSystem::close(descriptor);  // as on Linux, given up even where close() reports an error
    return fail ? -fault_.error : code;
  }
  int64_t pread(int descriptor, void* destination, std::size_t bytes, uint64_t offset) override {
    if (step({"pread", path_of(descriptor), ""})) {
      if (fault_.kind == Kind::kError) return -fault_.error;
      bytes = std::max<std::size_t>(1, bytes / 2);
    }
    return FileSystem::pread(descriptor, destination, bytes, offset);
  }
  int64_t write(int descriptor, const void* source, std::size_t bytes) override {
    if (step({"write", path_of(descriptor), ""})) {
      if (fault_.kind == Kind::kError) return -fault_.error;
      bytes = std::max<std::size_t>(1, bytes / 2);
    }
    return FileSystem::write(descriptor, source, bytes);
  }
  int fsync(int descriptor) override {
    return step({"fsync", path_of(descriptor), ""}) ? -fault_.error : FileSystem::fsync(descriptor);
  }
  int fsync_folder(const std::string& path) override {
    return step({"fsync_folder", path, ""}) ? -fault_.error : FileSystem::fsync_folder(path);
  }
  int rename(const std::string& from, const std::string& to) override {
    return step({"rename", from, to}) ? -fault_.error : FileSystem::rename(from, to);
  }
  int unlink(const std::string& path) override {
    return step({"unlink", path, ""}) ? -fault_.error : FileSystem::unlink(path);
  }
  int stat(int descriptor, FileStat& result) override {
    return step({"stat", path_of(descriptor), ""}) ? -fault_.error : FileSystem::stat(descriptor, result);
  }
  int stat_link(const std::string& path, FileStat& result) override {
    return step({"stat_link", path, ""}) ? -fault_.error : FileSystem::stat_link(path, result);
  }
  int real_path(const std::string& path, std::string& result) override {
    return step({"real_path", path, ""}) ? -fault_.error : FileSystem::real_path(path, result);
  }

 private:
  /// Whether this call is one to fail. Calls that move no bytes are left alone by kShortTransfer.
  bool step(Call call) {
    const std::lock_guard lock(mutex_);
    const bool moves_bytes = call.what == "pread" || call.what == "write";
    journal_.push_back(std::move(call));
    const auto count = static_cast<int64_t>(journal_.size());
    const bool due =
        fault_.at_call > 0 && (count == fault_.at_call || (fault_.and_all_later && count > fault_.at_call));
    if (!due || (fault_.kind == Kind::kShortTransfer && !moves_bytes)) return false;
    fired_ = true;
    return true;
  }
  std::string path_of(int descriptor) {
    const std::lock_guard lock(mutex_);
    return paths_[descriptor];
  }

  Fault fault_;
  bool fired_ = false;
  std::mutex mutex_;
  std::vector<Call> journal_;
  std::map<int, std::string> paths_;
};

/// Says what is wrong with the order of the calls that wrote a file, empty where a power cut at any moment leaves the
/// old or the new file: every write to it, then fsync of it, then rename, then fsync of its folder.
inline std::string durability_problem(const std::vector<FaultyFileSystem::Call>& journal, const std::string& target) {
  std::size_t renamed = journal.size();
  for (std::size_t i = 0; i < journal.size(); ++i) {
    if (journal[i].what == "rename" && journal[i].to == target) renamed = i;
    if ((journal[i].what == "write" || journal[i].what == "create") && journal[i].path == target)
      return "written in place";
  }
  if (renamed == journal.size()) return "never renamed to the target";
  bool flushed = false;
  for (std::size_t i = 0; i < renamed; ++i) {
    if (journal[i].path != journal[renamed].path) continue;
    if (journal[i].what == "write") flushed = false;
    if (journal[i].what == "fsync") flushed = true;
  }
  if (!flushed) return "renamed before its bytes were flushed";
  for (std::size_t i = renamed; i < journal.size(); ++i) {
    if (journal[i].what == "fsync_folder") return "";
  }
  return "the folder was not flushed after the rename";
}

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace rtlynx::testing
