#include "io/model_folder.h"

#include <fmt/core.h>

#include <algorithm>

#include "io/confine.h"
#include "io/json.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

constexpr std::string_view kIndexName = "model_index.json";

/// An entry [library, class]; [null, null] is how diffusers writes a component that was left out.
void read_component(const std::string& name, const nlohmann::json& entry, const std::string& origin,
                    std::vector<ModelComponent>& components) {
  const bool is_pair = entry.size() == 2;
  if (is_pair && entry[0].is_null() && entry[1].is_null()) return;
  if (!is_pair || !entry[0].is_string() || !entry[1].is_string()) {
    throw Error(ErrorCode::kBadConfig, fmt::format("{}: key {}: expected [library, class]", origin, quote(name)));
  }
  components.push_back({name, entry[0].get<std::string>(), entry[1].get<std::string>()});
}

[[noreturn]] void unknown_class(const std::filesystem::path& where, std::string_view what, std::string_view got,
                                std::string_view wanted) {
  throw Error(ErrorCode::kUnknownClass,
              fmt::format("{}: {} is {}, expected {}", (where / kIndexName).string(), what, quote(got), quote(wanted)));
}

}  // namespace

ModelFolder ModelFolder::open(const std::filesystem::path& folder) {
  ModelFolder model;
  model.path_ = resolve_folder(folder);
  const auto index = confined_path(model.path_, kIndexName);
  if (!path_exists(index)) {
    throw Error(ErrorCode::kNotFound, fmt::format("{}: has no {}; expected a model folder in diffusers' layout",
                                                  folder.string(), kIndexName));
  }
  const Config config = Config::read(index);
  model.class_name_ = config.text("_class_name");
  for (const auto& [name, entry] : config.json().items()) {
    if (entry.is_array()) read_component(name, entry, config.origin(), model.components_);
  }
  return model;
}

const ModelComponent* ModelFolder::find(std::string_view name) const {
  const auto found = std::find_if(components_.begin(), components_.end(),
                                  [&](const ModelComponent& component) { return component.name == name; });
  return found == components_.end() ? nullptr : &*found;
}

void ModelFolder::expect_class(std::string_view class_name) const {
  if (class_name_ != class_name) unknown_class(path_, "_class_name", class_name_, class_name);
}

std::filesystem::path ModelFolder::component(std::string_view name, std::string_view class_name) const {
  const ModelComponent* component = find(name);
  if (component == nullptr) {
    throw Error(ErrorCode::kBadConfig,
                fmt::format("{}: component {} is missing", (path_ / kIndexName).string(), quote(name)));
  }
  if (component->class_name != class_name) unknown_class(path_, name, component->class_name, class_name);
  return resolve_folder(confined_path(path_, name));
}

}  // namespace rtlynx::io
