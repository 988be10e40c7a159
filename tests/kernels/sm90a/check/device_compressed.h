#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "device_memory.h"
#include "rtlynx/sm90a.h"

/// Compressed activations on the device, and what the checks do with bytes that came back.
namespace rtlynx::check {

/// Activations compressed on the device, with zones around blocks, scales and sums of squares.
struct DeviceCompressed {
  DeviceCompressed(int64_t m, int64_t k)
      : blocks(static_cast<std::size_t>(sm90a::compressed_bytes(m, k).value())),
        scale(static_cast<std::size_t>(m) * 4),
        squares(static_cast<std::size_t>(sm90a::square_parts(k) * m) * 8),
        view{blocks.data(), static_cast<float*>(scale.data()), m, k} {}

  sm90a::CompressedSlice slice(int64_t k_offset) const { return {view, static_cast<float*>(squares.data()), k_offset}; }

  DeviceBytes blocks;
  DeviceBytes scale;
  DeviceBytes squares;
  sm90a::MutableCompressedView view;
};

/// The bytes between the zones; throws if a zone was written.
inline std::vector<uint8_t> between_zones(const DeviceBytes& bytes, const char* name) {
  const std::vector<uint8_t> all = bytes.download_all();
  constexpr std::size_t kZone = DeviceBytes::kZone;
  for (std::size_t i = 0; i < kZone; ++i) {
    if (all[i] != DeviceBytes::kPoison || all[all.size() - 1 - i] != DeviceBytes::kPoison) {
      throw std::runtime_error(std::string(name) + ": a red zone was written");
    }
  }
  return {all.begin() + kZone, all.end() - kZone};
}

inline std::vector<float> as_floats(const std::vector<uint8_t>& bytes) {
  std::vector<float> floats(bytes.size() / 4);
  std::memcpy(floats.data(), bytes.data(), bytes.size());
  return floats;
}

/// Equal bits, or both NaN: the payload of a computed NaN is the hardware's business.
inline bool same(float a, float b) {
  return std::memcmp(&a, &b, 4) == 0 || (std::isnan(a) && std::isnan(b));
}

/// The first float that differs, described; "" if none does.
inline std::string difference(const std::vector<float>& got, const std::vector<float>& expected, const char* name) {
  if (got.size() != expected.size()) return std::string(name) + ": another number of values";
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (same(got[i], expected[i])) continue;
    return std::string(name) + " " + std::to_string(i) + " is " + std::to_string(got[i]) + ", expected " +
           std::to_string(expected[i]);
  }
  return "";
}

/// The first byte of two sets of blocks that differs, described; "" if none does.
inline std::string difference(const std::vector<uint8_t>& got, const std::vector<uint8_t>& expected,
                              std::size_t block_bytes = 4608) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (got.size() == expected.size() && got[i] == expected[i]) continue;
    return "block " + std::to_string(i / block_bytes) + " byte " + std::to_string(i % block_bytes) + " is " +
           std::to_string(got[i]) + ", expected " + std::to_string(expected[i]);
  }
  return "";
}

/// Runs one check, turns exceptions into failures, prints what failed; returns the number of failures.
int run_check(const std::string& name, const std::function<std::string()>& check);

}  // namespace rtlynx::check
