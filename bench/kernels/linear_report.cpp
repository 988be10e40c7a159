#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "bench/kernels/linear_vs_torch.h"

namespace rtlynx::bench {
namespace {

/// "Intel(R) Xeon(R) Processor", or "unknown".
std::string machine_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

/// Other work on the machine while the rows were measured: its cores' average queue over a minute.
double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

std::string gflops(const LinearShape& shape, const Timing& timing) {
  const double work = 2e-6 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  return fmt::format("{:.0f}/{:.0f}", work / timing.median_ms, work / timing.best_ms);
}

std::string json_of(const Timing& timing) {
  return fmt::format(R"({{"median_ms":{:.5f},"best_ms":{:.5f}}})", timing.median_ms, timing.best_ms);
}

}  // namespace

std::string header_line() {
  return fmt::format("{:>5} {:>2} {:>18} {:>12} {:>12} {:>12} {:>12} {:>8} {}\n", "dtype", "t", "m n k", "F.linear",
                     "prepacked", "rt-lynx", "speed-up", "error", "plan");
}

std::string line_of(const LinearBenchRow& row) {
  const LinearShape& s = row.shape;
  return fmt::format("{:>5} {:>2} {:>18} {:>12} {:>12} {:>12} {:>12} {:>8.1e} {}\n", dtype_name(row.dtype), row.threads,
                     fmt::format("{} {} {}", s.m, s.n, s.k), gflops(s, row.linear), gflops(s, row.prepacked),
                     gflops(s, row.sparse), fmt::format("{:.2f}/{:.2f}", row.speedup_median(), row.speedup_best()),
                     row.max_error, execution_name(row.plan.execution));
}

std::string table_of(const std::vector<LinearBenchRow>& rows) {
  std::string text = header_line();
  for (const LinearBenchRow& row : rows) text += line_of(row);
  return text;
}

std::string jsonl_of(const std::vector<LinearBenchRow>& rows) {
  const char* limit = std::getenv("ONEDNN_MAX_CPU_ISA");
  std::string text;
  for (const LinearBenchRow& row : rows) {
    const LinearShape& s = row.shape;
    text += fmt::format(
        R"({{"bench":"linear","machine":"{}","simd":"{}","onednn_max_cpu_isa":"{}","load_average":{:.2f},"clock":"{}",)"
        R"("dtype":"{}","threads":{},"m":{},"n":{},"k":{},"count":{},"rank":{},"f_linear":{},"prepacked":{},)"
        R"("sparse":{},"speedup_median":{:.3f},"speedup_best":{:.3f},"max_error":{:.2e},"plan":"{}"}})"
        "\n",
        machine_name(), simd_target_name(simd_target()), limit == nullptr ? "" : limit, load_average(),
        row.clock == BenchClock::kWall ? "wall" : "cpu", dtype_name(row.dtype), row.threads, s.m, s.n, s.k, s.count,
        row.rank, json_of(row.linear), json_of(row.prepacked), json_of(row.sparse), row.speedup_median(),
        row.speedup_best(), row.max_error, execution_name(row.plan.execution));
  }
  return text;
}

}  // namespace rtlynx::bench
