#include "calibration/calibrate.h"

#include <fmt/format.h>

#include <optional>

#include "common.h"
#include "core/file.h"
#include "io/adapter.h"
#include "progress.h"

namespace rtlynx::cli {
namespace {

struct CalibrateFlags {
  CommonOptions common;
  std::string model = "models/mini-flux";
  std::string output;
  std::string prompt_file;
  SceneOptions scenes = {.num_prompts = 128};
  int64_t rank = 64;
  int64_t token_stride = 4;
  double ridge = 1e-3;
  int64_t memory_limit_mib = 8192;
  int64_t width = 0;
  int64_t height = 0;
  bool keep_state = false;
};

/// Prints the progress of both stages, each with its own bar.
class CalibrationDisplay {
 public:
  explicit CalibrationDisplay(bool quiet) : quiet_(quiet) {}

  void update(const calibration::CalibrationProgress& progress) {
    if (!bar_ || stage_ != progress.stage) {
      stage_ = progress.stage;
      const bool gathers = stage_ == calibration::CalibrationProgress::Stage::kGather;
      bar_.emplace(gathers ? "gathering" : "solving", gathers ? "steps" : "linears", quiet_);
    }
    bar_->update(progress.done, progress.total);
  }

 private:
  bool quiet_;
  calibration::CalibrationProgress::Stage stage_ = calibration::CalibrationProgress::Stage::kGather;
  std::optional<Progress> bar_;
};

void calibrate(const CalibrateFlags& flags) {
  SparseOptions dense;
  pipeline::FluxPipeline pipeline = load_pipeline(flags.model, flags.common, dense);
  const std::filesystem::path model(flags.model);
  const std::string name = std::filesystem::weakly_canonical(model).filename().string();

  calibration::CalibrationOptions options;
  options.output =
      flags.output.empty() ? model / io::adapter_file_name(flags.rank, name) : std::filesystem::path(flags.output);
  options.prompts = read_prompts(flags.model, flags.prompt_file, flags.scenes);
  options.seed = static_cast<uint64_t>(flags.scenes.seed);
  options.batch_size = flags.scenes.batch_size;
  options.num_inference_steps = flags.scenes.steps;
  options.rank = flags.rank;
  options.token_stride = flags.token_stride;
  options.ridge = flags.ridge;
  options.memory_limit = flags.memory_limit_mib << 20;
  options.keep_state = flags.keep_state;
  pipeline::DenoiseOptions denoise;
  denoise.width = flags.width > 0 ? flags.width : pipeline.default_size();
  denoise.height = flags.height > 0 ? flags.height : pipeline.default_size();
  denoise.guidance_scale = flags.scenes.guidance_scale;
  options.model_class = kTransformerClass;
  options.fingerprint = transformer_fingerprint(flags.model);
  options.settings = {{"guidance_scale", flags.scenes.guidance_scale},
                      {"width", denoise.width},
                      {"height", denoise.height},
                      {"dtype", flags.common.dtype}};

  const auto run = [&](const std::vector<std::string>& prompts, const std::vector<uint64_t>& seeds, int64_t steps,
                       const calibration::StepCallback& on_step) {
    denoise.num_inference_steps = steps;
    const auto embeddings = pipeline.encode_prompts(prompts);
    const auto latents = pipeline.initial_latents(seeds, denoise.width, denoise.height);
    pipeline.denoise(embeddings, nullptr, latents, denoise,
                     [&](int64_t step, int64_t total, double) { return !on_step || on_step(step, total); });
  };

  CalibrationDisplay display(flags.common.quiet);
  calibration::CalibrationCallbacks callbacks;
  callbacks.progress = [&](const calibration::CalibrationProgress& progress) {
    display.update(progress);
    return true;
  };
  callbacks.log = [&](const std::string& line) {
    if (!flags.common.quiet) fmt::print(stderr, "{}\n", line);
  };
  const auto linears = pipeline.transformer().sparse_linears();
  const io::Adapter adapter = calibration::calibrate(linears, run, options, callbacks);
  if (!flags.common.quiet) {
    double before = 0;
    double after = 0;
    for (const auto& linear : adapter.linears) {
      before += linear.error_before;
      after += linear.error_after;
    }
    const auto count = static_cast<double>(adapter.linears.size());
    fmt::print("{}: {} linears, rank {}, mean relative error {:.4f} before, {:.4f} with the branch\n",
               options.output.string(), adapter.linears.size(), adapter.rank, before / count, after / count);
  }
}

}  // namespace

void add_calibrate(CLI::App& app) {
  auto flags = std::make_shared<CalibrateFlags>();
  CLI::App* verb =
      app.add_subcommand("calibrate", "Make an adapter: the low-rank branch that recovers what pruning drops");
  verb->footer(
      "Example:\n"
      "  rtlynx calibrate -m models/mini-flux --rank 16\n"
      "The dense model runs the prompts over all timesteps; each linear's branch is then solved in closed form.\n"
      "Killed and started again with the same options, it goes on where it was and writes the same bytes.");
  verb->add_option("-m,--model", flags->model, "Model folder in diffusers' layout")->capture_default_str();
  verb->add_option("-o,--output", flags->output,
                   "Adapter file; default: rtlynx-r<rank>-<model>.safetensors in the model");
  verb->add_option("--prompts,--prompt-file", flags->prompt_file,
                   "UTF-8 text, a prompt a line; default: scenes that models/mini-flux knows");
  add_scene_options(*verb, flags->scenes);
  verb->add_option("-r,--rank", flags->rank, "Rank of the branch")->capture_default_str();
  verb->add_option("--token-stride", flags->token_stride,
                   "Every n-th token of a call is used; the sums cost more than the model where it is 1")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  verb->add_option("-W,--width", flags->width, "Pixels; 0: the model's own size")->capture_default_str();
  verb->add_option("-H,--height", flags->height, "Pixels; 0: the model's own size")->capture_default_str();
  verb->add_option("--ridge", flags->ridge, "Times the mean diagonal of X^T X")->capture_default_str();
  verb->add_option("--memory-limit", flags->memory_limit_mib,
                   "MiB for the sums; where they need more, the prompts run several times")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  verb->add_flag("--keep-state", flags->keep_state, "Keep the folder <output>.calibration after success");
  add_common_options(*verb, flags->common);
  verb->callback([flags] { calibrate(*flags); });
}

}  // namespace rtlynx::cli
