#include <fmt/format.h>
#include <fmt/ranges.h>

#include "bench/kernels/linear_on_cuda.h"
#include "bench/kernels/linear_vs_torch.h"
#include "common.h"
#include "core/file.h"
#include "rtlynx/backend.h"

namespace rtlynx::cli {
namespace {

struct BenchFlags {
  bench::LinearBenchOptions options;
  std::vector<std::string> dtypes = {"fp32", "bf16"};
  std::string simd_target;
  bool cpu_time = false;
  std::string output;
  std::string device = "cpu";
  std::string commit;
  std::string plot;
};

DType parse_dtype(const std::string& name) {
  if (name == "fp32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("--dtypes {}: expected fp32 or bf16", name));
}

void force_target(const std::string& name) {
  std::vector<std::string_view> names;
  for (const SimdTarget target : supported_simd_targets()) {
    if (simd_target_name(target) == name) return throw_if_error(force_simd_target(target));
    names.push_back(simd_target_name(target));
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("--simd-target {}: this machine has {}", name, fmt::join(names, ", ")));
}

/// Options of the one device mean nothing on the other.
void refuse_options(const CLI::App& verb, const std::vector<std::string>& names, const std::string& device) {
  for (const std::string& name : names) {
    if (verb.count(name) == 0) continue;
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} cannot be given with --device {}", name, device));
  }
}

void bench_linear_on_cuda(const CLI::App& verb, const BenchFlags& flags) {
  refuse_options(verb, {"--dtypes", "--threads", "--simd-target", "--cpu-time"}, flags.device);
  bench::CudaBenchOptions options;
  if (verb.count("--shapes") > 0) options.shapes = flags.options.shapes;
  if (verb.count("--rounds") > 0) options.rounds = flags.options.rounds;
  if (verb.count("--rank") > 0) options.rank = flags.options.rank;
  options.commit = flags.commit;
  const auto rows = bench::run_linear_cuda_bench(options);
  if (!flags.output.empty()) write_atomically(flags.output, bench::cuda_jsonl_of(rows));
  if (!flags.plot.empty()) write_atomically(flags.plot, bench::cuda_plot_of(rows));
}

void bench_linear(const CLI::App& verb, BenchFlags& flags) {
  if (flags.device == "cuda") return bench_linear_on_cuda(verb, flags);
  refuse_options(verb, {"--commit", "--plot"}, flags.device);
  if (!flags.simd_target.empty()) force_target(flags.simd_target);
  if (flags.cpu_time) flags.options.clock = bench::BenchClock::kCpu;
  flags.options.dtypes.clear();
  for (const std::string& name : flags.dtypes) flags.options.dtypes.push_back(parse_dtype(name));
  fmt::print("{}", bench::header_line());
  const auto rows = bench::run_linear_bench(flags.options);
  if (!flags.output.empty()) write_atomically(flags.output, bench::jsonl_of(rows));
}

}  // namespace

void add_bench(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* verb = app.add_subcommand("bench", "Time our kernels beside torch's in the same run");
  verb->footer("Example:\n  rtlynx bench linear --shapes shapes/flux.txt --threads 1,2 -o bench.jsonl");
  verb->require_subcommand(1);
  CLI::App* linear = verb->add_subcommand("linear",
                                          "The RT-Lynx linear, pruning included: on the CPU against F.linear and "
                                          "oneDNN with prepacked weights, on a GPU against cuBLASLt and cuSPARSELt");
  linear->footer(
      "Every contender of a row runs in the same rounds; figures are medians and bests, dense-equivalent.\n"
      "Examples:\n  rtlynx bench linear --shapes shapes/mini_flux.txt --dtypes fp32 --threads 2\n"
      "  rtlynx bench linear --device cuda --shapes shapes/hopper.txt -o hopper.jsonl");
  auto& options = flags->options;
  linear->add_option("--device", flags->device, "cpu, or cuda: bf16 on a Hopper GPU")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  linear->add_option("--shapes", options.shapes, "File of shapes: m n k count, a line each; on a GPU shapes/hopper.txt")
      ->capture_default_str();
  linear->add_option("--dtypes", flags->dtypes, "fp32, bf16")->delimiter(',')->capture_default_str();
  linear->add_option("-t,--threads", options.threads, "Numbers of threads, one table each")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  linear->add_option("--rounds", options.rounds, "Rounds over all contenders")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  linear->add_option("--rank", options.rank, "Rank of our low-rank branch (torch's linear has none); on a GPU 64")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  linear->add_option("--simd-target", flags->simd_target, "avx2, avx512, ...; default: the fastest of this machine");
  linear->add_flag("--cpu-time", flags->cpu_time,
                   "Count processor time, not the wall: for a machine that others keep busy");
  linear->add_option("--commit", flags->commit, "On a GPU: the commit, to be written into the results");
  linear->add_option("--plot", flags->plot, "On a GPU: the speed-ups as an SVG picture");
  linear->add_option("-o,--output", flags->output, "JSON lines: machine, shape, times");
  linear->callback([flags, linear] { bench_linear(*linear, *flags); });
}

}  // namespace rtlynx::cli
