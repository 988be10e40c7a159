// Runs one component on tensors from a file, for the comparison with diffusers in test_image_parity.py:
//   image_parity transformer|vae|scheduler FOLDER INPUT.safetensors OUTPUT.safetensors fp32|bf16

#include <c10/core/InferenceMode.h>

#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "linear/tensor_file.h"
#include "models/autoencoder_kl.h"
#include "models/flow_match_euler_scheduler.h"
#include "models/flux_transformer.h"

namespace rtlynx::tests {
namespace {

using TensorMap = std::map<std::string, at::Tensor>;

TensorMap run_transformer(const std::string& folder, const TensorMap& input, const Placement& placement) {
  auto model = models::FluxTransformer2DModel::load(folder, placement);
  const auto floating = [&](const char* name) { return input.at(name).to(placement.dtype); };
  models::FluxTransformerInput in;
  in.hidden_states = floating("hidden_states");
  in.encoder_hidden_states = floating("encoder_hidden_states");
  in.pooled_projections = floating("pooled_projections");
  in.timestep = input.at("timestep");
  if (input.contains("guidance")) in.guidance = input.at("guidance");
  in.height = input.at("grid")[0].item<int64_t>();
  in.width = input.at("grid")[1].item<int64_t>();
  const at::Tensor output = model.forward(in);
  TensorMap result = {{"output", output.to(at::kFloat)}};
  result["same_again"] = at::scalar_tensor(at::equal(model.forward(in), output) ? 1 : 0, at::kLong);
  return result;
}

TensorMap run_vae(const std::string& folder, const TensorMap& input, const Placement& placement) {
  const auto decoder = models::AutoencoderKlDecoder::load(folder, placement);
  return {{"output", decoder.decode(input.at("latents").to(placement.dtype)).to(at::kFloat)}};
}

TensorMap run_scheduler(const std::string& folder, const TensorMap& input, const Placement& placement) {
  const auto scheduler = models::FlowMatchEulerScheduler::load(folder);
  const at::Tensor outputs = input.at("model_outputs").to(placement.dtype);
  const auto sigmas = scheduler.sigmas(outputs.size(0), input.at("image_seq_len").item<int64_t>());
  at::Tensor sample = input.at("sample").to(placement.dtype);
  std::vector<at::Tensor> samples;
  std::vector<float> timesteps;
  for (int64_t i = 0; i < outputs.size(0); ++i) {
    timesteps.push_back(scheduler.timestep(sigmas[i]));
    sample = models::FlowMatchEulerScheduler::step(outputs[i], sample, sigmas[i], sigmas[i + 1]);
    samples.push_back(sample.to(at::kFloat));
  }
  return {{"sigmas", at::tensor(sigmas)}, {"timesteps", at::tensor(timesteps)}, {"samples", at::stack(samples)}};
}

int run(const std::string& component, const std::string& folder, const std::string& input, const std::string& output,
        const std::string& dtype) {
  const c10::InferenceMode inference;
  Placement placement;
  placement.dtype = dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  const auto function = component == "transformer" ? run_transformer : component == "vae" ? run_vae : run_scheduler;
  write_tensor_file(output, {function(folder, read_tensor_file(input).tensors, placement), {}});
  return 0;
}

}  // namespace
}  // namespace rtlynx::tests

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: image_parity COMPONENT FOLDER INPUT OUTPUT DTYPE\n");
    return 2;
  }
  try {
    return rtlynx::tests::run(argv[1], argv[2], argv[3], argv[4], argv[5]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
