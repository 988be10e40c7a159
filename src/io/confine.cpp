#include "io/confine.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "core/filesystem.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

constexpr std::size_t kMaxNameBytes = 255;

bool is_plain_name(std::string_view name) {
  const auto is_bad = [](char c) { return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  return !name.empty() && name.size() <= kMaxNameBytes && name != "." && name != ".." &&
         std::none_of(name.begin(), name.end(), is_bad);
}

/// The folder that links may not leave.
std::filesystem::path confinement_root(const std::filesystem::path& folder) {
  for (auto at = folder; at.has_relative_path(); at = at.parent_path()) {
    if (at.filename() == "snapshots" && at.parent_path().filename().string().starts_with("models--")) {
      return at.parent_path();
    }
  }
  return folder;
}

bool lies_in(const std::filesystem::path& path, const std::filesystem::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

}  // namespace

std::filesystem::path resolve_folder(const std::filesystem::path& folder) {
  FileSystem& fs = FileSystem::current();
  std::string resolved;
  int code = fs.real_path(folder.string(), resolved);
  FileStat stat;
  if (code == 0) code = fs.stat_link(resolved, stat);
  if (code < 0) {
    const bool missing = code == -ENOENT || code == -ENOTDIR;
    throw Error(missing ? ErrorCode::kNotFound : ErrorCode::kReadFailed,
                fmt::format("{}: {}", folder.string(), std::generic_category().message(-code)));
  }
  if (!stat.is_folder) throw Error(ErrorCode::kNotAFile, fmt::format("{}: expected a folder", folder.string()));
  return resolved;
}

std::filesystem::path confined_path(const std::filesystem::path& folder, std::string_view name) {
  if (!is_plain_name(name)) {
    throw Error(ErrorCode::kOutsideFolder,
                fmt::format("{}: names {}; expected a plain file name in this folder", folder.string(), quote(name)));
  }
  const std::filesystem::path path = folder / name;
  std::string resolved;
  if (FileSystem::current().real_path(path.string(), resolved) < 0) return path;
  if (!lies_in(resolved, confinement_root(folder))) {
    throw Error(ErrorCode::kOutsideFolder,
                fmt::format("{}: is a link out of its folder, to {}", path.string(), quote(resolved, 255)));
  }
  return resolved;
}

bool path_exists(const std::filesystem::path& path) {
  FileStat stat;
  return FileSystem::current().stat_link(path.string(), stat) == 0;
}

}  // namespace rtlynx::io
