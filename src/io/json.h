#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace rtlynx::io {

/// Parses strictly: UTF-8, no BOM, no duplicate keys, nothing after the value, depth <= 16, at most `max_bytes`.
/// `origin` names the source in messages. Throws Error(kBadJson).
nlohmann::json parse_json(std::string_view text, const std::string& origin, std::size_t max_bytes = 16u << 20);
nlohmann::json read_json(const std::filesystem::path& path, std::size_t max_bytes = 16u << 20);

/// A JSON object read as a config: every access names its type and bounds; errors name file, key, wanted and got.
/// Keys that a model may omit take the overload with a default; null counts as absent there.
class Config {
 public:
  static Config read(const std::filesystem::path& path);
  Config(nlohmann::json value, std::string origin);

  bool has(std::string_view key) const;  ///< present and not null
  int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  int64_t integer(std::string_view key, int64_t min, int64_t max, int64_t otherwise) const;
  double number(std::string_view key, double min, double max) const;
  double number(std::string_view key, double min, double max, double otherwise) const;
  bool boolean(std::string_view key) const;
  bool boolean(std::string_view key, bool otherwise) const;
  std::string text(std::string_view key) const;  ///< at most 4,096 bytes
  std::string text(std::string_view key, std::string_view otherwise) const;
  /// An array of at most `max_count` integers, each within the bounds.
  std::vector<int64_t> integers(std::string_view key, int64_t min, int64_t max, std::size_t max_count = 64) const;
  std::vector<std::string> texts(std::string_view key, std::size_t max_count = 65536) const;

  const nlohmann::json& json() const { return value_; }
  const std::string& origin() const { return origin_; }

 private:
  nlohmann::json value_;
  std::string origin_;
};

}  // namespace rtlynx::io
