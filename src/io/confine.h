#pragma once

#include <filesystem>
#include <string_view>

namespace rtlynx::io {

/// A folder that a model came in, resolved. Throws Error: kNotFound, kNotAFile where it is no folder, kReadFailed.
std::filesystem::path resolve_folder(const std::filesystem::path& folder);

/// The path of `name` in `folder` (as resolve_folder gives it), with symbolic links resolved, for names that come out
/// of a model: a plain name of at most 255 bytes, whose file lies in the folder. What does not exist is folder/name.
/// In the layout of the Hugging Face cache, models--X/snapshots/<revision>/..., links may lead to anywhere in
/// models--X, where the cache keeps the blobs. Throws Error(kOutsideFolder).
std::filesystem::path confined_path(const std::filesystem::path& folder, std::string_view name);

/// Whether something of that name exists; its type is checked when it is opened.
bool path_exists(const std::filesystem::path& path);

}  // namespace rtlynx::io
