#include <fmt/format.h>

#include "common.h"
#include "core/file.h"
#include "core/hash64.h"
#include "evaluation/ablation.h"
#include "evaluation/report.h"
#include "io/png.h"
#include "progress.h"

namespace rtlynx::cli {
namespace {

struct EvaluateFlags {
  CommonOptions common;
  std::string model = "models/mini-flux";
  std::string scorer;
  std::string adapter;
  std::string output = "evaluation";
  std::string sheet;
  std::string plan = "sparse";
  std::vector<std::string> modes = {"dense", "sw", "sa", "sa-nc", "sa-nc-lora"};
  SceneOptions scenes = {.num_prompts = 500};
  std::string command;
};

std::string file_hash(const std::filesystem::path& path) {
  constexpr std::size_t kMaxAdapterBytes = std::size_t{4} << 30;
  Hash64 hash;
  hash.update(read_whole_file(path, kMaxAdapterBytes));
  return hex16(hash.digest());
}

evaluation::AblationOptions to_options(const EvaluateFlags& flags, const pipeline::FluxPipeline& pipeline) {
  evaluation::AblationOptions options;
  for (const std::string& name : flags.modes) options.methods.push_back(evaluation::method_from_name(name));
  options.num_prompts = flags.scenes.num_prompts;
  options.seed = static_cast<uint64_t>(flags.scenes.seed);
  options.batch_size = flags.scenes.batch_size;
  options.policy = parse_plan(flags.plan);
  options.denoise.num_inference_steps = flags.scenes.steps;
  options.denoise.guidance_scale = flags.scenes.guidance_scale;
  options.denoise.width = options.denoise.height = pipeline.default_size();
  options.state = flags.output + ".evaluation";
  const std::string fingerprint = transformer_fingerprint(flags.model);  // reads the whole transformer
  options.identity = fmt::format("{} {} {}", fingerprint, flags.common.dtype, flags.common.device);
  for (const auto& method : options.methods) {
    if (!method.mode.needs_adapter() || options.adapter) continue;
    const std::filesystem::path path = find_adapter(flags.model, flags.adapter);
    options.identity += " adapter " + file_hash(path);
    options.adapter = io::read_adapter(path);
    if (options.adapter->fingerprint != fingerprint) {
      throw Error(ErrorCode::kAdapterMismatch, fmt::format("{}: the fingerprint {} is not that of {}", path.string(),
                                                           options.adapter->fingerprint, flags.model));
    }
  }
  return options;
}

std::string heading(const EvaluateFlags& flags) {
  return fmt::format(
      "`{}`\n\n{} prompts, seed {}, {} steps, guidance {}, {} on {}, batches of {}. Times cover the denoising "
      "loop.\n\n",
      flags.command, flags.scenes.num_prompts, flags.scenes.seed, flags.scenes.steps, flags.scenes.guidance_scale,
      flags.common.dtype, flags.common.device, flags.scenes.batch_size);
}

void evaluate(const EvaluateFlags& flags) {
  pipeline::FluxPipeline pipeline = load_pipeline(flags.model, flags.common, SparseOptions{});
  const std::filesystem::path folder =
      flags.scorer.empty() ? find_scorer(flags.model) : std::filesystem::path(flags.scorer);
  const evaluation::Scorer scorer = evaluation::Scorer::load(folder, pipeline.placement().device);
  const evaluation::AblationOptions options = to_options(flags, pipeline);

  Progress progress("evaluating", "batches", flags.common.quiet);
  const evaluation::AblationResult result = evaluation::run_ablation(
      pipeline, scorer, options, [&](int64_t done, int64_t total) { progress.update(done, total); });

  const std::string table = evaluation::to_markdown(result, heading(flags));
  write_atomically(flags.output + ".md", table);
  write_atomically(flags.output + ".csv", evaluation::to_csv(result));
  write_atomically(flags.output + ".json", evaluation::to_json(result).dump(2) + "\n");
  if (!flags.sheet.empty()) {
    const pipeline::Image sheet = evaluation::contact_sheet(result);
    io::write_png(flags.sheet, sheet.width, sheet.height, sheet.rgb, {});
  }
  if (!flags.common.quiet) fmt::print("{}", table);
}

}  // namespace

void add_evaluate(CLI::App& app, const std::string& command) {
  auto flags = std::make_shared<EvaluateFlags>();
  flags->command = command;
  CLI::App* verb = app.add_subcommand("evaluate", "Make the same scenes in every mode, score them, write the table");
  verb->footer(
      "Example:\n"
      "  rtlynx evaluate -m models/mini-flux --num-prompts 500 -o out/ablation --sheet out/ablation.png\n"
      "Writes <output>.md, .csv and .json. Modes: dense; sw: 2:4 weights by magnitude; sa, sa-nc, sa-nc-lora;\n"
      "sa-nc-lora-sl: the same adapter, with the linears left dense that 'rtlynx skip' chose.\n"
      "Killed and started again with the same options, it continues after the last finished batch.");
  verb->add_option("-m,--model", flags->model, "Model folder in diffusers' layout")->capture_default_str();
  verb->add_option("--scorer", flags->scorer, "Scorer folder; default: <model>-scorer");
  verb->add_option("--modes", flags->modes, "Rows of the table, comma-separated; dense first")
      ->delimiter(',')
      ->capture_default_str();
  verb->add_option("--adapter", flags->adapter,
                   "Adapter file; default: the one rtlynx-*.safetensors in the model folder");
  verb->add_option("--plan", flags->plan, "auto, sparse or require, as in generate")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "sparse", "require"}));
  verb->add_option("-o,--output", flags->output, "Where the tables go, without extension")->capture_default_str();
  verb->add_option("--sheet", flags->sheet, "PNG with the first six scenes in every mode");
  add_scene_options(*verb, flags->scenes);
  add_common_options(*verb, flags->common);
  verb->callback([flags] { evaluate(*flags); });
}

}  // namespace rtlynx::cli
