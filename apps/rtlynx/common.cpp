#include "common.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <thread>

#include "calibration/apply_adapter.h"
#include "core/file.h"
#include "evaluation/scenes.h"
#include "io/adapter.h"
#include "io/safetensors.h"
#include "io/utf8.h"
#include "rtlynx/backend.h"

namespace rtlynx::cli {

void add_common_options(CLI::App& verb, CommonOptions& options) {
  verb.add_option("--device", options.device, "cpu or cuda")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  verb.add_option("--dtype", options.dtype, "fp32 or bf16")
      ->capture_default_str()
      ->check(CLI::IsMember({"fp32", "bf16"}));
  verb.add_option("-t,--threads", options.threads, "CPU threads; 0: one per core")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  verb.add_flag("-q,--quiet", options.quiet, "Print nothing but errors");
  verb.add_flag("-v,--verbose", options.verbose, "Print what was loaded, the plan and peak memory");
}

void add_sparse_options(CLI::App& verb, SparseOptions& options) {
  verb.add_option(
          "--mode", options.mode,
          "dense; sa: activations pruned 2:4; sa-nc: and scaled to their norm; sa-nc-lora: and the adapter's branch; "
          "sa-nc-lora-sl: but for the linears that the adapter leaves dense")
      ->capture_default_str()
      ->check(CLI::IsMember(calibration::model_mode_names()));
  verb.add_option("--adapter", options.adapter,
                  "Adapter file; without it, the one rtlynx-*.safetensors in the model folder");
  verb.add_option("--plan", options.plan,
                  "auto: dense where sparse is slower on this machine; sparse: never dense; require: an error there")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "sparse", "require"}));
  verb.add_flag_callback(
      "--require-sparse", [&options] { options.plan = "require"; }, "The same as --plan require");
}

void add_scene_options(CLI::App& verb, SceneOptions& options) {
  verb.add_option("--num-prompts", options.num_prompts, "How many prompts")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  verb.add_option("--steps,--num-inference-steps", options.steps, "Denoising steps")->capture_default_str();
  verb.add_option("--guidance,--guidance-scale", options.guidance_scale, "Distilled guidance")->capture_default_str();
  verb.add_option("--batch-size", options.batch_size, "Pictures that are made together")->capture_default_str();
  verb.add_option("-s,--seed", options.seed, "Of the scenes; picture i starts from the noise of seed + i")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
}

PlanPolicy parse_plan(const std::string& text) {
  if (text == "sparse") return PlanPolicy::kSparse;
  if (text == "require") return PlanPolicy::kRequire;
  return PlanPolicy::kAuto;
}

Placement prepare(const CommonOptions& options) {
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const int threads = options.threads > 0 ? options.threads : cores;
  at::set_num_threads(threads);  // the kernel library follows it: both use the process's OpenMP
  // The same command must give the same bytes.
  at::globalContext().setDeterministicCuDNN(true);
  at::globalContext().setBenchmarkCuDNN(false);
  Placement placement;
  placement.dtype = options.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  if (options.device == "cuda") {
    if (!at::hasCUDA() || at::getNumGPUs() == 0) {
      throw Error(ErrorCode::kUnsupported, "--device cuda: libtorch finds no usable GPU on this machine");
    }
    placement.device = at::Device(at::kCUDA, 0);
  }
  return placement;
}

std::filesystem::path find_adapter(const std::string& model, const std::string& adapter) {
  if (!adapter.empty()) return adapter;
  std::vector<std::filesystem::path> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(model, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("rtlynx-") && name.ends_with(".safetensors")) found.push_back(entry.path());
  }
  if (found.size() == 1) return found.front();
  throw Error(ErrorCode::kNotFound,
              fmt::format("{}: found {} files rtlynx-*.safetensors, expected one; make one with 'rtlynx calibrate' or "
                          "name it with --adapter",
                          model, found.size()));
}

std::string transformer_fingerprint(const std::string& model) {
  return io::fingerprint(io::ComponentWeights::open(std::filesystem::path(model) / "transformer"));
}

pipeline::FluxPipeline load_pipeline(const std::string& model, const CommonOptions& common,
                                     const SparseOptions& sparse) {
  const Placement placement = prepare(common);
  pipeline::FluxPipeline pipeline = pipeline::FluxPipeline::load(model, placement);
  const calibration::ModelMode mode = calibration::model_mode_from_name(sparse.mode);
  const PlanPolicy policy = parse_plan(sparse.plan);
  const auto linears = pipeline.transformer().sparse_linears();
  if (mode.needs_adapter()) {
    const std::filesystem::path path = find_adapter(model, sparse.adapter);
    calibration::apply_adapter(linears, io::read_adapter(path), path.string(), kTransformerClass,
                               transformer_fingerprint(model), mode, policy);
  } else {
    calibration::set_modes(linears, mode.linear, policy);
  }
  if (common.verbose) {
    fmt::print(stderr, "{}: {} on {}, {} threads, mode {}, plan {}\n", model, common.dtype, common.device,
               num_threads(), sparse.mode, sparse.plan);
  }
  return pipeline;
}

std::filesystem::path find_scorer(const std::string& model) {
  std::filesystem::path folder = std::filesystem::weakly_canonical(model);
  folder += "-scorer";
  if (!std::filesystem::is_directory(folder)) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: no scorer for this model's scenes there; name prompts with --prompts or a scorer with "
                            "--scorer",
                            folder.string()));
  }
  return folder;
}

std::string read_text(const std::filesystem::path& path, std::size_t max_bytes) {
  std::string text = read_whole_file(path, max_bytes);
  if (!io::is_utf8(text)) {
    throw Error(ErrorCode::kBadPrompt, fmt::format("{}: not valid UTF-8", path.string()));
  }
  return text;
}

std::vector<std::string> read_lines(const std::filesystem::path& path) {
  constexpr std::size_t kMaxBytes = std::size_t{16} << 20;
  const std::string text = read_text(path, kMaxBytes);
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(std::move(line));
    begin = end + 1;
  }
  if (lines.empty()) throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: no prompts in it", path.string()));
  return lines;
}

std::vector<std::string> read_prompts(const std::string& model, const std::string& prompt_file,
                                      const SceneOptions& scenes) {
  if (prompt_file.empty()) {
    return evaluation::scene_prompts(find_scorer(model), static_cast<uint64_t>(scenes.seed), scenes.num_prompts);
  }
  std::vector<std::string> prompts = read_lines(prompt_file);
  prompts.resize(std::min(prompts.size(), static_cast<std::size_t>(scenes.num_prompts)));
  return prompts;
}

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;  // Linux counts KiB
}

}  // namespace rtlynx::cli
