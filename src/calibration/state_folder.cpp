#include "calibration/state_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <vector>

#include "core/file.h"
#include "core/filesystem.h"
#include "io/json.h"
#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRunFile = "run.json";

/// The files of the folder that end or begin as told, sorted; other files in it are none of our business.
std::vector<fs::path> files_in(const fs::path& folder, bool temporary_only) {
  std::vector<fs::path> found;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(folder, failure)) {
    const std::string name = entry.path().filename().string();
    const bool temporary = name.starts_with(".rtlynx-") && name.ends_with(".tmp");
    if (temporary || (!temporary_only && (name.ends_with(".safetensors") || name == kRunFile))) {
      found.push_back(entry.path());
    }
  }
  if (failure) {
    throw Error(ErrorCode::kReadFailed, fmt::format("{}: {}", folder.string(), failure.message()));
  }
  std::sort(found.begin(), found.end());
  return found;
}

void unlink_file(const fs::path& path) {
  const int result = FileSystem::current().unlink(path.string());
  if (result < 0 && result != -ENOENT) {
    throw Error(ErrorCode::kWriteFailed,
                fmt::format("{}: cannot be removed: {}", path.string(), std::generic_category().message(-result)));
  }
}

std::string differing_keys(const nlohmann::json& saved, const nlohmann::json& now) {
  std::string keys;
  const auto note = [&](const std::string& key) { keys += (keys.empty() ? "" : ", ") + key; };
  for (const auto& [key, value] : now.items()) {
    if (!saved.contains(key) || saved[key] != value) note(key);
  }
  for (const auto& [key, value] : saved.items()) {
    if (!now.contains(key)) note(key);
  }
  return keys;
}

}  // namespace

StateFolder StateFolder::open(fs::path folder, const nlohmann::json& run) {
  std::error_code failure;
  fs::create_directory(folder, failure);
  if (failure || !fs::is_directory(folder, failure)) {
    throw Error(ErrorCode::kWriteFailed,
                fmt::format("{}: the folder for the unfinished run cannot be made: {}", folder.string(),
                            failure ? failure.message() : "a file of this name exists"));
  }
  for (const fs::path& leftover : files_in(folder, /*temporary_only=*/true)) unlink_file(leftover);
  const fs::path run_file = folder / kRunFile;
  if (!fs::exists(run_file, failure)) {
    write_atomically(run_file, run.dump(1) + "\n");
    return StateFolder(std::move(folder));
  }
  const nlohmann::json saved = io::read_json(run_file);
  if (saved != run) {
    throw Error(ErrorCode::kOtherRun,
                fmt::format("{}: holds another run, which differs in {}; finish that one or remove the folder",
                            folder.string(), saved.is_object() ? differing_keys(saved, run) : "everything"));
  }
  return StateFolder(std::move(folder));
}

fs::path StateFolder::path_of(const std::string& unit) const {
  return folder_ / (unit + ".safetensors");
}

bool StateFolder::has(const std::string& unit) const {
  std::error_code failure;
  return fs::exists(path_of(unit), failure);
}

std::optional<TensorFile> StateFolder::load(const std::string& unit) const {
  if (!has(unit)) {
    return std::nullopt;
  }
  return read_tensor_file(path_of(unit));
}

void StateFolder::save(const std::string& unit, const TensorFile& contents) const {
  write_tensor_file(path_of(unit), contents);
}

void StateFolder::move_out(const std::string& unit, const fs::path& target) const {
  FileSystem& files = FileSystem::current();
  const fs::path parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
  int result = files.rename(path_of(unit).string(), target.string());
  if (result >= 0) result = files.fsync_folder(parent.string());
  if (result < 0) {
    throw Error(ErrorCode::kWriteFailed, fmt::format("{}: cannot be renamed from {}: {}", target.string(),
                                                     path_of(unit).string(), std::generic_category().message(-result)));
  }
}

void StateFolder::drop(const std::string& unit) const {
  unlink_file(path_of(unit));
}

void StateFolder::remove() const {
  // run.json goes last: a folder without it would look new to the next run, with units of unknown origin in it.
  for (const fs::path& file : files_in(folder_, /*temporary_only=*/false)) {
    if (file.filename() != kRunFile) unlink_file(file);
  }
  unlink_file(folder_ / kRunFile);
  std::error_code failure;
  fs::remove(folder_, failure);  // stays where someone put other files into it
}

}  // namespace rtlynx::calibration
