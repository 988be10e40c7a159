#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common.h"
#include "evaluation/scenes.h"
#include "io/adapter.h"
#include "io/model_folder.h"
#include "io/png.h"
#include "linear/sparse_ops.h"
#include "progress.h"
#include "rtlynx/backend.h"

namespace rtlynx::cli {
namespace {

struct InspectFlags {
  CommonOptions common;
  std::string path;
  bool analyze = false;
  int64_t num_prompts = 4;
  int64_t steps = 8;
};

std::string format_bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 1e9) return fmt::format("{:.2f} GB", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.1f} MB", value / 1e6);
  return fmt::format("{:.1f} kB", value / 1e3);
}

void inspect_png(const std::filesystem::path& path) {
  const io::PngImage image = io::read_png_text(path);
  fmt::print("{}: PNG, {} x {} pixels\n", path.string(), image.width, image.height);
  for (const auto& [keyword, text] : image.text) fmt::print("{}:\n{}\n", keyword, text);
}

void inspect_adapter(const std::filesystem::path& path) {
  const io::Adapter adapter = io::read_adapter(path);
  fmt::print("{}: adapter for {}, weights {}\n", path.string(), adapter.model_class, adapter.fingerprint);
  fmt::print("method {}, rank {}, calibration {}\n\n", adapter.method, adapter.rank, adapter.calibration.dump());
  fmt::print("{:<52} {:>6} {:>6}  {:<8} {:>8} {:>10} {:>10}  {}\n", "linear", "k", "n", "decision", "energy",
             "err before", "err after", "why");
  for (const auto& linear : adapter.linears) {
    fmt::print("{:<52} {:>6} {:>6}  {:<8} {:>7.1f}% {:>10.5f} {:>10.5f}  {}\n", linear.name, linear.k, linear.n,
               linear.sparse ? "sparse" : "dense", 100 * linear.energy_kept, linear.error_before, linear.error_after,
               linear.reason);
  }
}

void list_components(const io::ModelFolder& folder) {
  fmt::print("{}: {}\n\n", folder.path().string(), folder.class_name());
  fmt::print("{:<16} {:<32} {:>9} {:>14} {:>10}\n", "component", "class", "tensors", "parameters", "bytes");
  for (const auto& component : folder.components()) {
    const auto path = folder.path() / component.name;
    const bool has_weights = std::filesystem::exists(path / "config.json");
    if (!has_weights) {
      fmt::print("{:<16} {:<32}\n", component.name, component.class_name);
      continue;
    }
    const io::ComponentWeights weights = io::ComponentWeights::open(path);
    int64_t parameters = 0;
    for (const auto& name : weights.names()) {
      int64_t count = 1;
      for (const int64_t size : weights.find(name).second->shape) count *= size;
      parameters += count;
    }
    fmt::print("{:<16} {:<32} {:>9} {:>14} {:>10}\n", component.name, component.class_name, weights.names().size(),
               parameters, format_bytes(weights.total_bytes()));
  }
}

/// Of each linear's inputs, over a few denoising runs.
std::vector<KeptEnergy> measure_activations(pipeline::FluxPipeline& pipeline, const InspectFlags& flags,
                                            const std::vector<std::string>& prompts) {
  const auto linears = pipeline.transformer().sparse_linears();
  std::vector<KeptEnergy> energies(linears.size());
  for (std::size_t i = 0; i < linears.size(); ++i) {
    linears[i]->set_observer([&energies, i](const Linear&, const at::Tensor& x) { energies[i].add(x); });
  }
  pipeline::DenoiseOptions options;
  options.width = options.height = pipeline.default_size();
  options.num_inference_steps = flags.steps;
  Progress progress("analyzing", "steps", flags.common.quiet);
  std::vector<uint64_t> seeds(prompts.size());
  for (std::size_t i = 0; i < seeds.size(); ++i) seeds[i] = i;
  pipeline.denoise(pipeline.encode_prompts(prompts), nullptr,
                   pipeline.initial_latents(seeds, options.width, options.height), options,
                   [&](int64_t step, int64_t total, double) {
                     progress.update(step, total);
                     return true;
                   });
  for (auto* linear : linears) linear->set_observer({});
  return energies;
}

void inspect_model(const InspectFlags& flags) {
  list_components(io::ModelFolder::open(flags.path));
  pipeline::FluxPipeline pipeline = load_pipeline(flags.path, flags.common, SparseOptions{});
  const auto linears = pipeline.transformer().sparse_linears();
  std::vector<KeptEnergy> activations;
  if (flags.analyze) {
    const auto prompts = evaluation::scene_prompts(find_scorer(flags.path), 1, flags.num_prompts);
    activations = measure_activations(pipeline, flags, prompts);
  }
  const int64_t side = pipeline.default_size() / pipeline.size_multiple();
  const int64_t m = side * side + pipeline.default_max_sequence_length();
  fmt::print("\n{} linears can run on 2:4 activations; the plan on this machine in {}, {} threads, m = {}:\n\n",
             linears.size(), flags.common.dtype, num_threads(), m);
  fmt::print("{:<52} {:>6} {:>6}  {}\n", "linear", "k", "n",
             flags.analyze ? "energy kept: activations  weights  plan" : "plan");
  for (std::size_t i = 0; i < linears.size(); ++i) {
    Linear& linear = *linears[i];
    linear.set_mode(LinearMode::kSaNc, PlanPolicy::kAuto);
    const LinearDecision decision = linear.decide(m);
    const std::string plan = fmt::format("{}: {}", decision.sparse ? "sparse" : "dense", decision.why);
    fmt::print("{:<52} {:>6} {:>6}  ", linear.name(), linear.k(), linear.n());
    if (flags.analyze) {
      KeptEnergy weight;
      weight.add(linear.weight());
      fmt::print("{:>24.1f}% {:>7.1f}%  ", 100 * activations[i].share(), 100 * weight.share());
    }
    fmt::print("{}\n", plan);
  }
}

void inspect(const InspectFlags& flags) {
  const std::filesystem::path path(flags.path);
  if (path.extension() == ".png") return inspect_png(path);
  if (path.extension() == ".safetensors") return inspect_adapter(path);
  inspect_model(flags);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* verb = app.add_subcommand("inspect", "Show what is in a model folder, an adapter or a PNG");
  verb->footer(
      "Examples:\n"
      "  rtlynx inspect models/mini-flux              components, linears, and what the plan says on this machine\n"
      "  rtlynx inspect models/mini-flux --analyze    also the energy that pruning keeps, activations against weights\n"
      "  rtlynx inspect fox.png                       prompt and settings that made a picture");
  verb->add_option("path", flags->path, "Model folder, adapter (.safetensors) or picture (.png)")->required();
  verb->add_flag("--analyze", flags->analyze, "Run a few denoising steps and measure the linears' inputs");
  verb->add_option("--num-prompts", flags->num_prompts, "Prompts for --analyze")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  verb->add_option("--steps", flags->steps, "Denoising steps for --analyze")->capture_default_str();
  add_common_options(*verb, flags->common);
  verb->callback([flags] { inspect(*flags); });
}

}  // namespace rtlynx::cli
