#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace rtlynx::bench {

/// Median times of the engine's linears, dense and sparse, from the file that `rtlynx bench linear -o` writes.
class LinearTimes {
 public:
  /// Takes the lines of that dtype ("fp32", "bf16") and, for a CPU's lines, that number of threads; the last line of a
  /// shape counts. Throws Error: kBadJson, kBadConfig for lines that are not the bench's, kInvalidArgument where no
  /// line fits, the file's codes.
  static LinearTimes read(const std::filesystem::path& path, std::string_view dtype, int threads);

  /// Milliseconds that sparse saves for one call; negative where it is slower. Throws Error(kInvalidArgument) that
  /// names the shape where it was not timed.
  double saved_ms(int64_t m, int64_t n, int64_t k) const;

 private:
  struct Times {
    double dense_ms = 0;
    double sparse_ms = 0;
  };
  std::string origin_;
  std::map<std::array<int64_t, 3>, Times> by_shape_;  ///< m, n, k
};

}  // namespace rtlynx::bench
