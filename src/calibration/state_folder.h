#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "linear/tensor_file.h"

namespace rtlynx::calibration {

/// The folder in which an unfinished run keeps its finished units, one file each, every one written atomically. The
/// file run.json says which run it is; another run is refused.
class StateFolder {
 public:
  /// Creates the folder with `run` as its run.json, or resumes: Error(kOtherRun) names the keys of run.json that
  /// differ. Temporary files that a killed run left are removed. Throws Error.
  static StateFolder open(std::filesystem::path folder, const nlohmann::json& run);

  /// The unit of that name, or nothing where it was not saved yet. Throws Error where the file is damaged.
  std::optional<TensorFile> load(const std::string& unit) const;
  void save(const std::string& unit, const TensorFile& contents) const;
  bool has(const std::string& unit) const;
  /// Where a unit lies: `<folder>/<unit>.safetensors`.
  std::filesystem::path path_of(const std::string& unit) const;
  /// Renames a unit to `target` on the same file system, durably; a file there is replaced.
  void move_out(const std::string& unit, const std::filesystem::path& target) const;
  /// Removes one unit; nothing where there is none.
  void drop(const std::string& unit) const;
  /// Removes the folder with all that this class put into it.
  void remove() const;

 private:
  explicit StateFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path folder_;
};

}  // namespace rtlynx::calibration
