// Runs the pipeline on requests from a file, for test_pipeline_parity.py:
//   pipeline_parity MODEL_FOLDER REQUESTS.json OUTPUT.safetensors fp32|bf16
// REQUESTS holds {"requests": [{...}, ...]} with GenerateOptions' names; "prompts" and "seeds" instead of "prompt" and
// "seed" ask for one image per prompt in one batch. Output i is "i": uint8 [images, height, width, 3].

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "io/json.h"
#include "linear/tensor_file.h"
#include "pipeline/flux_pipeline.h"

namespace rtlynx::tests {
namespace {

constexpr int64_t kAny = int64_t{1} << 40;  // the pipeline itself checks the bounds

pipeline::GenerateOptions parse(const io::Config& request) {
  pipeline::GenerateOptions options;
  options.prompt = request.text("prompt", "");
  options.negative_prompt = request.text("negative_prompt", "");
  options.width = request.integer("width", -kAny, kAny, options.width);
  options.height = request.integer("height", -kAny, kAny, options.height);
  options.num_inference_steps = request.integer("num_inference_steps", -kAny, kAny, options.num_inference_steps);
  options.guidance_scale = request.number("guidance_scale", -1e9, 1e9, options.guidance_scale);
  options.true_cfg_scale = request.number("true_cfg_scale", -1e9, 1e9, options.true_cfg_scale);
  options.seed = static_cast<uint64_t>(request.integer("seed", 0, kAny, 0));
  options.num_images_per_prompt = request.integer("num_images_per_prompt", -kAny, kAny, 1);
  options.max_sequence_length = request.integer("max_sequence_length", -kAny, kAny, 0);
  return options;
}

std::vector<pipeline::Image> run_batch(pipeline::FluxPipeline& pipeline, const io::Config& request) {
  const auto options = parse(request);
  const auto prompts = pipeline.encode_prompts(request.texts("prompts"), options.max_sequence_length);
  std::vector<uint64_t> seeds;
  for (const int64_t seed : request.integers("seeds", 0, kAny)) seeds.push_back(static_cast<uint64_t>(seed));
  const auto noise = pipeline.initial_latents(seeds, options.width, options.height);
  const auto latents = pipeline.denoise(prompts, nullptr, noise, options);
  return pipeline.decode(latents, options.width, options.height, seeds);
}

at::Tensor to_tensor(const std::vector<pipeline::Image>& images) {
  std::vector<at::Tensor> rows;
  for (const auto& image : images) {
    rows.push_back(at::tensor(at::ArrayRef<uint8_t>(image.rgb), at::kByte).reshape({image.height, image.width, 3}));
  }
  return at::stack(rows);
}

int run(const std::string& folder, const std::string& requests, const std::string& output, const std::string& dtype) {
  Placement placement;
  placement.dtype = dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  auto pipeline = pipeline::FluxPipeline::load(folder, placement);
  TensorFile result;
  const auto file = io::read_json(requests);
  for (const auto& entry : file.at("requests")) {
    const io::Config request(entry, requests);
    const auto images = request.has("prompts") ? run_batch(pipeline, request) : pipeline.generate(parse(request));
    result.tensors[std::to_string(result.tensors.size())] = to_tensor(images);
  }
  write_tensor_file(output, result);
  return 0;
}

}  // namespace
}  // namespace rtlynx::tests

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: pipeline_parity MODEL_FOLDER REQUESTS OUTPUT DTYPE\n");
    return 2;
  }
  try {
    return rtlynx::tests::run(argv[1], argv[2], argv[3], argv[4]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
