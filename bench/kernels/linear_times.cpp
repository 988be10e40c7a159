#include "bench/kernels/linear_times.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/kernels/linear_on_cuda.h"
#include "core/file.h"
#include "io/json.h"
#include "rtlynx/status.h"

namespace rtlynx::bench {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{64} << 20;
constexpr double kMostMs = 1e9;

/// The median of one contestant in a CPU's line.
double median_of(const io::Config& line, const char* contestant) {
  const nlohmann::json value = line.json().value(contestant, nlohmann::json());
  return io::Config(value, fmt::format("{}: {}", line.origin(), contestant)).number("median_ms", 0, kMostMs);
}

}  // namespace

LinearTimes LinearTimes::read(const std::filesystem::path& path, std::string_view dtype, int threads) {
  const std::string text = read_whole_file(path, kMaxBytes);
  const std::string_view cpu_dtype = dtype == "fp32" ? "F32" : "BF16";
  LinearTimes times;
  times.origin_ = path.string();
  int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string origin = fmt::format("{}:{}", path.string(), ++number);
    const std::string_view part = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (part.empty()) continue;
    const io::Config line(io::parse_json(part, origin), origin);
    const bool on_cuda = line.text("bench") == "linear-cuda";
    constexpr int64_t kMost = int64_t{1} << 40;
    if (line.text("dtype") != (on_cuda ? dtype : cpu_dtype)) continue;
    if (!on_cuda && line.integer("threads", 1, kMost) != threads) continue;
    Times& shape =
        times.by_shape_[{line.integer("m", 1, kMost), line.integer("n", 1, kMost), line.integer("k", 1, kMost)}];
    if (!on_cuda) {
      shape = {median_of(line, "f_linear"), median_of(line, "sparse")};
    } else if (const std::string contestant = line.text("contestant");
               contestant == contestant_name(CudaContestant::kTorchLinear)) {
      shape.dense_ms = line.number("median_us", 0, kMostMs) / 1000;
    } else if (contestant == contestant_name(CudaContestant::kLinear)) {
      shape.sparse_ms = line.number("median_us", 0, kMostMs) / 1000;
    }
  }
  if (times.by_shape_.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: no times for {}, nor for {} threads on a CPU", path.string(), dtype, threads));
  }
  return times;
}

double LinearTimes::saved_ms(int64_t m, int64_t n, int64_t k) const {
  const auto found = by_shape_.find({m, n, k});
  if (found == by_shape_.end() || found->second.dense_ms <= 0 || found->second.sparse_ms <= 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: no times for m={} n={} k={}; put the shape into the list of 'rtlynx bench linear'",
                            origin_, m, n, k));
  }
  return found->second.dense_ms - found->second.sparse_ms;
}

}  // namespace rtlynx::bench
