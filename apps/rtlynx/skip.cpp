#include "calibration/skip.h"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "bench/kernels/linear_times.h"
#include "common.h"
#include "core/file.h"
#include "evaluation/skip_report.h"
#include "io/adapter.h"
#include "progress.h"
#include "rtlynx/backend.h"

namespace rtlynx::cli {
namespace {

struct SkipFlags {
  CommonOptions common;
  std::string model = "models/mini-flux";
  std::string adapter;
  std::string output;
  std::string curve;
  std::string prompt_file;
  std::string times;
  // Another seed than evaluate's, so that the scenes that choose are not those that judge.
  SceneOptions scenes = {.num_prompts = 8, .seed = 2};
  double sparse_flops = 0.85;
  int64_t timesteps = 5;
  int64_t candidates = 8;
  int64_t per_round = 2;
  bool keep_state = false;
};

/// The pipeline as the measurement wants it; a batch's prompts are encoded once.
class PipelineVelocity {
 public:
  PipelineVelocity(pipeline::FluxPipeline& pipeline, double guidance_scale) : pipeline_(pipeline) {
    denoise_.width = denoise_.height = pipeline.default_size();
    denoise_.guidance_scale = guidance_scale;
  }

  void denoise(const std::vector<std::string>& prompts, const std::vector<uint64_t>& seeds, int64_t steps,
               const calibration::VelocityModel::OnStep& on_step) {
    denoise_.num_inference_steps = steps;
    const at::Tensor latents = pipeline_.initial_latents(seeds, denoise_.width, denoise_.height);
    bool go_on = true;
    pipeline_.set_step_observer(
        [&](int64_t step, const at::Tensor& x, const at::Tensor& v) { go_on = on_step(step, x, v); });
    try {
      pipeline_.denoise(encoded(prompts), nullptr, latents, denoise_, [&](int64_t, int64_t, double) { return go_on; });
    } catch (...) {
      pipeline_.set_step_observer({});
      throw;
    }
    pipeline_.set_step_observer({});
  }

  at::Tensor predict(const std::vector<std::string>& prompts, const at::Tensor& latents, int64_t step, int64_t steps) {
    denoise_.num_inference_steps = steps;
    return pipeline_.predict_velocity(encoded(prompts), latents, step, denoise_);
  }

 private:
  const pipeline::PromptEmbeddings& encoded(const std::vector<std::string>& prompts) {
    const auto found = embeddings_.find(prompts);
    if (found != embeddings_.end()) return found->second;
    return embeddings_.emplace(prompts, pipeline_.encode_prompts(prompts)).first->second;
  }

  pipeline::FluxPipeline& pipeline_;
  pipeline::DenoiseOptions denoise_;
  std::map<std::vector<std::string>, pipeline::PromptEmbeddings> embeddings_;
};

calibration::SkipOptions to_options(const SkipFlags& flags, const std::filesystem::path& adapter,
                                    const pipeline::FluxPipeline& pipeline) {
  calibration::SkipOptions options;
  options.output = flags.output.empty() ? adapter : std::filesystem::path(flags.output);
  options.search.sparse_flops = flags.sparse_flops;
  options.search.candidates = flags.candidates;
  options.search.chosen_a_round = flags.per_round;
  options.search.whole_curve = !flags.curve.empty();
  options.damage.prompts = read_prompts(flags.model, flags.prompt_file, flags.scenes);
  options.damage.seed = static_cast<uint64_t>(flags.scenes.seed);
  options.damage.batch_size = flags.scenes.batch_size;
  options.damage.num_inference_steps = flags.scenes.steps;
  options.damage.num_timesteps = flags.timesteps;
  options.settings = {{"guidance_scale", flags.scenes.guidance_scale},
                      {"width", pipeline.default_size()},
                      {"height", pipeline.default_size()},
                      {"dtype", flags.common.dtype},
                      {"device", flags.common.device}};
  options.keep_state = flags.keep_state;
  if (!flags.times.empty()) {
    options.saved_ms = [times = bench::LinearTimes::read(flags.times, flags.common.dtype, num_threads())](
                           int64_t m, int64_t n, int64_t k) { return times.saved_ms(m, n, k); };
  }
  return options;
}

void write_curve(const std::string& path, const calibration::SkipResult& result) {
  write_atomically(path + ".csv", evaluation::skip_curve_csv(result));
  write_atomically(path + ".svg", evaluation::skip_curve_svg(result));
  write_atomically(path + "-linears.csv", evaluation::skip_linears_csv(result));
}

void print_summary(const std::filesystem::path& output, const calibration::SkipResult& result) {
  const calibration::SkipChoice& choice = result.choice;
  for (std::size_t place = 0; place < choice.order.size(); ++place) {
    const std::size_t i = choice.order[place];
    fmt::print("{:>3}  {:<52} {:>5.2f} % of the FLOPs, damage {:.2e} alone, {:.2e} less beside the others\n", place + 1,
               result.names[i], 100 * result.shares[i], choice.alone[i], choice.gains[place]);
  }
  double sparse = 0;
  for (std::size_t i = 0; i < result.shares.size(); ++i) sparse += choice.sparse[i] ? result.shares[i] : 0;
  fmt::print("{}: {} of {} linears left dense, {:.2f} % of the FLOPs sparse, damage {:.3e} instead of {:.3e}\n",
             output.string(), choice.order.size(), result.names.size(), 100 * sparse, choice.damage, choice.damage_all);
}

void skip(const SkipFlags& flags) {
  const std::filesystem::path path = find_adapter(flags.model, flags.adapter);
  const io::Adapter adapter = io::read_adapter(path);
  pipeline::FluxPipeline pipeline = load_pipeline(flags.model, flags.common, SparseOptions{});
  const calibration::SkipOptions options = to_options(flags, path, pipeline);
  const std::string fingerprint = transformer_fingerprint(flags.model);
  if (adapter.fingerprint != fingerprint) {
    throw Error(ErrorCode::kAdapterMismatch, fmt::format("{}: made for weights {}, those of {} are {}", path.string(),
                                                         adapter.fingerprint, flags.model, fingerprint));
  }

  PipelineVelocity velocity(pipeline, flags.scenes.guidance_scale);
  const calibration::VelocityModel model = {
      [&](const auto& prompts, const auto& seeds, int64_t steps, const auto& on_step) {
        velocity.denoise(prompts, seeds, steps, on_step);
      },
      [&](const auto& prompts, const at::Tensor& latents, int64_t step, int64_t steps) {
        return velocity.predict(prompts, latents, step, steps);
      }};
  std::optional<Progress> bar;
  auto stage = calibration::SkipProgress::Stage::kDense;
  const auto linears = pipeline.transformer().sparse_linears();
  const calibration::SkipResult result = calibration::choose_skips(
      linears, model, adapter, path.string(), options, [&](const calibration::SkipProgress& progress) {
        if (!bar || stage != progress.stage) {
          stage = progress.stage;
          const bool dense = stage == calibration::SkipProgress::Stage::kDense;
          bar.emplace(dense ? "dense model" : "measuring", dense ? "steps" : "sets", flags.common.quiet);
        }
        bar->update(progress.done, progress.total);
        return true;
      });
  if (!flags.curve.empty()) write_curve(flags.curve, result);
  if (!flags.common.quiet) print_summary(options.output, result);
}

}  // namespace

void add_skip(CLI::App& app) {
  auto flags = std::make_shared<SkipFlags>();
  CLI::App* verb = app.add_subcommand("skip", "Choose, by measurement, the linears to leave dense in sa-nc-lora-sl");
  verb->footer(
      "Example:\n"
      "  rtlynx skip -m models/mini-flux --sparse-flops 0.85 -o out/sl.safetensors --curve out/pareto\n"
      "  rtlynx generate -m models/mini-flux --mode sa-nc-lora-sl --adapter out/sl.safetensors -p \"a fox\"\n"
      "Every linear is made sparse alone, and the change of the predicted velocity is its damage. The linears that do\n"
      "most damage for the FLOPs they save are left dense, a few at a time, each time measured beside those chosen\n"
      "before. The decisions and their reasons go into the adapter ('rtlynx inspect' shows them); its branches stay,\n"
      "so that mode sa-nc-lora still prunes all. Killed and started again with the same options, it continues.");
  verb->add_option("-m,--model", flags->model, "Model folder in diffusers' layout")->capture_default_str();
  verb->add_option("--adapter", flags->adapter,
                   "Adapter file; default: the one rtlynx-*.safetensors in the model folder");
  verb->add_option("-o,--output", flags->output, "Adapter with the decisions; default: the adapter itself");
  verb->add_option("--sparse-flops", flags->sparse_flops, "The share of the linears' FLOPs that stays sparse, at least")
      ->capture_default_str();
  verb->add_option("--curve", flags->curve,
                   "Also measure the curve of damage over sparse FLOPs: writes <curve>.csv, <curve>.svg and "
                   "<curve>-linears.csv");
  verb->add_option("--prompts,--prompt-file", flags->prompt_file,
                   "UTF-8 text, a prompt a line; default: scenes that models/mini-flux knows");
  add_scene_options(*verb, flags->scenes);
  verb->add_option("--times", flags->times,
                   "Choose by the milliseconds that sparse saves, not by FLOPs: a file of 'rtlynx bench linear -o'")
      ->check(CLI::ExistingFile);
  verb->add_option("--timesteps", flags->timesteps, "How many of the steps are measured, spread evenly")
      ->capture_default_str();
  verb->add_option("--candidates", flags->candidates, "Linears that each round measures again")->capture_default_str();
  verb->add_option("--per-round", flags->per_round, "Linears that each round leaves dense, at most")
      ->capture_default_str();
  verb->add_flag("--keep-state", flags->keep_state,
                 "Keep the folder <output>.skip: another --sparse-flops then continues from what is measured");
  add_common_options(*verb, flags->common);
  verb->callback([flags] { skip(*flags); });
}

}  // namespace rtlynx::cli
