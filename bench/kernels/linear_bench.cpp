// linear_bench: our linear beside torch's, over a shape list; the same as `rtlynx bench linear`.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>

#include "bench/kernels/linear_vs_torch.h"

int main(int argc, char** argv) {
  using namespace rtlynx;
  bench::LinearBenchOptions options;
  std::string jsonl, dtype = "both", target;
  CLI::App app{"RT-Lynx linears beside torch's"};
  app.add_option("--shapes", options.shapes, "shape list")->capture_default_str();
  app.add_option("--threads", options.threads, "thread counts")->capture_default_str();
  app.add_option("--rounds", options.rounds, "rounds; every contender runs in each")->capture_default_str();
  app.add_option("--rank", options.rank, "rank of the low-rank branch")->capture_default_str();
  app.add_option("--dtype", dtype, "f32, bf16 or both")->check(CLI::IsMember({"f32", "bf16", "both"}));
  app.add_option("--target", target, "SIMD target instead of the automatic one");
  app.add_option("--jsonl", jsonl, "append the rows to this file");
  app.add_flag_callback(
      "--cpu-time", [&] { options.clock = bench::BenchClock::kCpu; }, "count processor time");
  CLI11_PARSE(app, argc, argv);
  if (dtype == "f32") options.dtypes = {DType::kF32};
  if (dtype == "bf16") options.dtypes = {DType::kBF16};
  try {
    for (const SimdTarget candidate : supported_simd_targets()) {
      if (simd_target_name(candidate) == target) throw_if_error(force_simd_target(candidate));
    }
    fmt::print("{}", bench::header_line());
    const auto rows = bench::run_linear_bench(options);
    if (!jsonl.empty()) std::ofstream(jsonl, std::ios::app) << bench::jsonl_of(rows);
  } catch (const Error& error) {
    fmt::print(stderr, "linear_bench: {}\n", error.what());
    return 1;
  }
  return 0;
}
