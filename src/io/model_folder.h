#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace rtlynx::io {

/// A component as model_index.json lists it: "text_encoder": ["transformers", "CLIPTextModel"].
struct ModelComponent {
  std::string name;
  std::string library;
  std::string class_name;
};

/// A folder in diffusers' layout. Every path that it gives lies in the folder (confine.h says what of links).
class ModelFolder {
 public:
  /// Throws Error: kNotFound (no folder, no model_index.json), kNotAFile, kBadJson, kBadConfig.
  static ModelFolder open(const std::filesystem::path& folder);

  const std::filesystem::path& path() const { return path_; }  ///< resolved
  const std::string& class_name() const { return class_name_; }
  /// Sorted by name; components that the pipeline leaves out (null) are not there.
  const std::vector<ModelComponent>& components() const { return components_; }
  /// nullptr where it is not listed.
  const ModelComponent* find(std::string_view name) const;

  /// Throws Error(kUnknownClass) naming what the folder says and what is wanted.
  void expect_class(std::string_view class_name) const;
  /// The folder of a component whose class must be `class_name`. Throws Error: kBadConfig (not listed), kUnknownClass,
  /// kNotFound, kNotAFile, kOutsideFolder.
  std::filesystem::path component(std::string_view name, std::string_view class_name) const;

 private:
  std::filesystem::path path_;
  std::string class_name_;
  std::vector<ModelComponent> components_;
};

}  // namespace rtlynx::io
