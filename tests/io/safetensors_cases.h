#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "rtlynx/status.h"

namespace rtlynx::testing {

/// A safetensors file in memory and what RT-Lynx must say to it.
struct SafetensorsCase {
  std::string name;
  std::string bytes;
  ErrorCode expected = ErrorCode::kOk;  ///< kOk: accepted
  std::vector<std::string> mentions;    ///< what the message must hold, besides the path
  /// PyPI's safetensors 0.8 accepts what RT-Lynx refuses, on purpose.
  bool reference_accepts = false;
};

/// What GoogleTest prints of a case.
inline void PrintTo(const SafetensorsCase& c, std::ostream* out) {
  *out << c.name;
}

/// Length, header, and `data_bytes` bytes 0, 1, ..., 250, 0, ... ; `length` overrides the true one.
std::string safetensors_bytes(std::string_view header, std::size_t data_bytes = 0, std::optional<uint64_t> length = {});

/// `"name":{"dtype":...,"shape":...,"data_offsets":...}`, all pieces as they stand in the JSON.
std::string safetensors_entry(std::string_view name, std::string_view dtype, std::string_view shape,
                              std::string_view offsets);

/// Length and JSON, keys, numbers, layout, names and scale.
std::vector<SafetensorsCase> safetensors_cases();

}  // namespace rtlynx::testing
