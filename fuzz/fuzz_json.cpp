// The strict JSON parser and the accesses of Config. What it accepts must survive a round trip.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "io/json.h"
#include "rtlynx/status.h"

namespace {

using rtlynx::Error;
using rtlynx::ErrorCode;

void require(bool condition) {
  if (!condition) std::abort();
}

template <class Access>
void try_access(Access&& access) {
  try {
    access();
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kBadConfig);
  }
}

void read_everything(const rtlynx::io::Config& config) {
  for (const auto& [key, value] : config.json().items()) {
    try_access([&, name = key] { require(config.integer(name, -5, 5) <= 5); });
    try_access([&, name = key] { require(config.number(name, -1e6, 1e6) <= 1e6); });
    try_access([&, name = key] { config.boolean(name, true); });
    try_access([&, name = key] { require(config.text(name).size() <= 4096); });
    try_access([&, name = key] { require(config.integers(name, 0, 9, 3).size() <= 3); });
    try_access([&, name = key] { require(config.texts(name, 3).size() <= 3); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  try {
    const auto value = rtlynx::io::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    require(rtlynx::io::parse_json(value.dump(), "again") == value);
    if (value.is_object()) read_everything(rtlynx::io::Config(value, "fuzz"));
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kBadJson);
  }
  return 0;
}
