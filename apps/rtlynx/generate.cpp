#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <random>

#include "calibration/apply_adapter.h"
#include "common.h"
#include "io/png.h"
#include "progress.h"

namespace rtlynx::cli {
namespace {

/// Far above what a tokenizer takes; it refuses long prompts with the exact limit.
constexpr std::size_t kMaxPromptFileBytes = std::size_t{4} << 20;

struct GenerateFlags {
  CommonOptions common;
  SparseOptions sparse;
  std::string model = "models/mini-flux";
  std::string output = "output.png";
  std::string prompt_file;
  int64_t seed = 42;
  bool disable_image_metadata = false;
  pipeline::GenerateOptions request;
};

/// "fox.png" -> "fox-003.png" when several images are made.
std::filesystem::path numbered(const std::filesystem::path& path, std::size_t index, std::size_t count) {
  if (count == 1) return path;
  std::filesystem::path result = path;
  result.replace_filename(fmt::format("{}-{:03}{}", path.stem().string(), index, path.extension().string()));
  return result;
}

/// The text that A1111 and stable-diffusion.cpp put into a PNG, with what RT-Lynx adds at the end.
std::string parameters_text(const GenerateFlags& flags, int64_t seed) {
  const auto& request = flags.request;
  std::string text = request.prompt + "\n";
  if (!request.negative_prompt.empty()) text += "Negative prompt: " + request.negative_prompt + "\n";
  text += fmt::format("Steps: {}, Guidance: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}, Mode: {}",
                      request.num_inference_steps, request.guidance_scale, request.true_cfg_scale, seed, request.width,
                      request.height, std::filesystem::path(flags.model).filename().string(), flags.sparse.mode);
  if (calibration::model_mode_from_name(flags.sparse.mode).needs_adapter()) {
    text += ", Adapter: " + find_adapter(flags.model, flags.sparse.adapter).filename().string();
  }
  return text + ", Version: RT-Lynx " RTLYNX_VERSION;
}

/// One line on standard error where a text encoder does not read all of a prompt.
void warn_of_truncation(const pipeline::FluxPipeline& pipeline, const pipeline::GenerateOptions& request) {
  std::vector<std::string> parts;
  const auto add = [&](std::string_view name, const std::string& prompt) {
    for (const auto& cut : pipeline.truncations(prompt, request.max_sequence_length)) {
      parts.push_back(fmt::format("{} drops the last {} tokens of the {} (limit {})", cut.encoder, cut.tokens_dropped,
                                  name, cut.limit));
    }
  };
  add("prompt", request.prompt);
  if (request.true_cfg_scale > 1) add("negative prompt", request.negative_prompt);
  if (!parts.empty()) fmt::print(stderr, "rtlynx: warning: {}\n", fmt::join(parts, "; "));
}

void generate(GenerateFlags& flags) {
  const std::filesystem::path output(flags.output);
  if (output.extension() != ".png") {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("-o {}: expected a file name that ends in .png", flags.output));
  }
  if (!flags.prompt_file.empty()) flags.request.prompt = read_text(flags.prompt_file, kMaxPromptFileBytes);
  if (flags.seed < 0) flags.seed = static_cast<int64_t>(std::random_device{}());
  flags.request.seed = static_cast<uint64_t>(flags.seed);

  auto pipeline = load_pipeline(flags.model, flags.common, flags.sparse);
  if (flags.request.width == 0) flags.request.width = pipeline.default_size();
  if (flags.request.height == 0) flags.request.height = pipeline.default_size();

  if (!flags.common.quiet) warn_of_truncation(pipeline, flags.request);
  Progress progress("denoising", "steps", flags.common.quiet);
  const auto start = std::chrono::steady_clock::now();
  const auto images = pipeline.generate(flags.request, [&](int64_t step, int64_t total, double) {
    progress.update(step, total);
    return true;
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto path = numbered(output, i, images.size());
    io::PngText text;
    if (!flags.disable_image_metadata) {
      text["parameters"] = parameters_text(flags, static_cast<int64_t>(images[i].seed));
    }
    io::write_png(path, images[i].width, images[i].height, images[i].rgb, text);
    if (!flags.common.quiet) fmt::print("{}\n", path.string());
  }
  if (flags.common.verbose) {
    fmt::print(stderr, "{} image(s) in {}, peak memory {:.0f} MiB\n", images.size(), format_duration(seconds),
               static_cast<double>(peak_memory_bytes()) / (1 << 20));
  }
}

}  // namespace

void add_generate(CLI::App& app) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* verb = app.add_subcommand("generate", "Make pictures from a prompt");
  verb->footer(
      "Example:\n"
      "  rtlynx generate -m models/mini-flux -p \"an owl left of a rocket on a dotted pink background\" \\\n"
      "    --mode sa-nc-lora -s 7 -o owl.png\n"
      "The same command gives the same bytes. With -b N, image i uses seed + i.");
  auto& request = flags->request;
  verb->add_option("-m,--model", flags->model, "Model folder in diffusers' layout")->capture_default_str();
  auto* prompt = verb->add_option_group("prompt");
  prompt->add_option("-p,--prompt", request.prompt, "What the picture shows");
  prompt->add_option("--prompt-file", flags->prompt_file, "UTF-8 file whose whole text is the prompt");
  prompt->require_option(1);
  verb->add_option("-n,--negative-prompt", request.negative_prompt,
                   "What it should not show; used when --cfg-scale > 1");
  verb->add_option("-o,--output", flags->output, "PNG file; -000, -001, ... is added when -b > 1")
      ->capture_default_str();
  verb->add_option("-W,--width", request.width, "Pixels; 0: the model's own size")->capture_default_str();
  verb->add_option("-H,--height", request.height, "Pixels; 0: the model's own size")->capture_default_str();
  verb->add_option("--steps,--num-inference-steps", request.num_inference_steps, "Denoising steps")
      ->capture_default_str();
  verb->add_option("--guidance,--guidance-scale", request.guidance_scale, "Distilled guidance (an input of the model)")
      ->capture_default_str();
  verb->add_option("--cfg-scale,--true-cfg-scale", request.true_cfg_scale,
                   "Classifier-free guidance against the negative prompt; 1: off")
      ->capture_default_str();
  verb->add_option("-s,--seed", flags->seed, "Seed of the noise; negative: a random one, printed in the metadata")
      ->capture_default_str();
  verb->add_option("-b,--batch-count,--num-images-per-prompt", request.num_images_per_prompt, "Number of pictures")
      ->capture_default_str();
  verb->add_option("--max-sequence-length", request.max_sequence_length,
                   "Tokens of the prompt for T5; 0: the model's own length, at most 512")
      ->capture_default_str();
  verb->add_flag("--disable-image-metadata", flags->disable_image_metadata,
                 "Write no prompt and settings into the PNG");
  add_sparse_options(*verb, flags->sparse);
  add_common_options(*verb, flags->common);
  verb->callback([flags] { generate(*flags); });
}

}  // namespace rtlynx::cli
