// Runs one component on tensors from a file, for the comparison with diffusers in the test_*_parity.py beside it:
//   image_parity flux[-rope]|qwen-image[-rope]|z-image[-rope]|vae|scheduler FOLDER INPUT.safetensors OUTPUT.safetensors
//   fp32|bf16 [MODE]
// MODE is a transformer's linear mode. The output of a transformer lists its replaceable linears in its metadata.

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "linear/tensor_file.h"
#include "models/autoencoder_kl.h"
#include "models/flow_match_euler_scheduler.h"
#include "models/flux_transformer.h"
#include "models/qwen_image_transformer.h"
#include "models/z_image_transformer.h"
#include "rtlynx/status.h"

namespace rtlynx::tests {
namespace {

using TensorMap = std::map<std::string, at::Tensor>;

struct Job {
  std::string folder;
  TensorMap input;
  Placement placement;
  LinearMode mode = LinearMode::kDense;

  at::Tensor floating(const std::string& name) const { return input.at(name).to(placement.dtype); }
};

void set_modes(const std::vector<Linear*>& linears, LinearMode mode, TensorFile& result) {
  for (Linear* linear : linears) {
    linear->set_mode(mode, PlanPolicy::kSparse);
    result.metadata["linears"] += linear->name() + "\n";
  }
}

template <class Model, class Input>
TensorFile run_packed(Model& model, const Job& job, Input& in) {
  TensorFile result;
  set_modes(model.sparse_linears(), job.mode, result);
  in.hidden_states = job.floating("hidden_states");
  in.encoder_hidden_states = job.floating("encoder_hidden_states");
  in.timestep = job.input.at("timestep");
  in.height = job.input.at("grid")[0].template item<int64_t>();
  in.width = job.input.at("grid")[1].template item<int64_t>();
  const at::Tensor output = model.forward(in);
  result.tensors["output"] = output.to(at::kFloat);
  // The second forward uses the kept rotary table.
  result.tensors["same_again"] = at::scalar_tensor(at::equal(model.forward(in), output) ? 1 : 0, at::kLong);
  return result;
}

TensorFile run_flux(const Job& job) {
  auto model = models::FluxTransformer2DModel::load(job.folder, job.placement);
  models::FluxTransformerInput in;
  in.pooled_projections = job.floating("pooled_projections");
  if (job.input.contains("guidance")) in.guidance = job.input.at("guidance");
  return run_packed(model, job, in);
}

TensorFile run_qwen_image(const Job& job) {
  auto model = models::QwenImageTransformer2DModel::load(job.folder, job.placement);
  models::QwenImageTransformerInput in;
  if (job.input.contains("mask")) in.encoder_hidden_states_mask = job.input.at("mask").to(at::kBool);
  if (job.input.contains("float_mask")) in.encoder_hidden_states_mask = job.input.at("float_mask");
  return run_packed(model, job, in);
}

/// Inputs and outputs are named latents.0, cap_feats.0, output.0, latents.1, ...
TensorFile run_z_image(const Job& job) {
  auto model = models::ZImageTransformer2DModel::load(job.folder, job.placement);
  TensorFile result;
  set_modes(model.sparse_linears(), job.mode, result);
  models::ZImageTransformerInput in;
  in.timestep = job.input.at("timestep");
  const auto append = [&](const char* name, std::vector<at::Tensor>& tensors) {
    for (int i = 0; job.input.contains(fmt::format("{}.{}", name, i)); ++i) {
      tensors.push_back(job.floating(fmt::format("{}.{}", name, i)));
    }
  };
  append("latents", in.latents);
  append("cap_feats", in.cap_feats);
  const std::vector<at::Tensor> output = model.forward(in);
  const std::vector<at::Tensor> again = model.forward(in);
  bool same = true;
  for (std::size_t i = 0; i < output.size(); ++i) {
    result.tensors[fmt::format("output.{}", i)] = output[i].to(at::kFloat);
    same = same && at::equal(output[i], again[i]);
  }
  result.tensors["same_again"] = at::scalar_tensor(same ? 1 : 0, at::kLong);
  return result;
}

/// The rotary table of a grid (text, height, width) as fp32 [tokens, head_dim / 2, 2].
template <class Model, class Config>
TensorFile run_rope(const Job& job) {
  auto tables = Model::rope_tables(Config::parse(io::Config::read(job.folder + "/config.json")), job.placement);
  const at::Tensor grid = job.input.at("grid");
  const auto size = [&](int64_t i) { return grid[i].item<int64_t>(); };
  return {{{"output", at::view_as_real(tables.at({size(0), size(1), size(2)})).clone()}}, {}};
}

TensorFile run_vae(const Job& job) {
  const auto decoder = models::AutoencoderKlDecoder::load(job.folder, job.placement);
  return {{{"output", decoder.decode(job.floating("latents")).to(at::kFloat)}}, {}};
}

TensorFile run_scheduler(const Job& job) {
  using Scheduler = models::FlowMatchEulerScheduler;
  const Scheduler scheduler = Scheduler::load(job.folder);
  const at::Tensor outputs = job.floating("model_outputs");
  const auto start =
      job.input.contains("torch_start") ? Scheduler::StartSigmas::kTorch : Scheduler::StartSigmas::kNumpy;
  const auto sigmas = scheduler.sigmas(outputs.size(0), job.input.at("image_seq_len").item<int64_t>(), start);
  at::Tensor sample = job.floating("sample");
  std::vector<at::Tensor> samples;
  std::vector<float> timesteps;
  for (int64_t i = 0; i < outputs.size(0); ++i) {
    timesteps.push_back(scheduler.timestep(sigmas[i]));
    sample = Scheduler::step(outputs[i], sample, sigmas[i], sigmas[i + 1]);
    samples.push_back(sample.to(at::kFloat));
  }
  return {{{"sigmas", at::tensor(sigmas)}, {"timesteps", at::tensor(timesteps)}, {"samples", at::stack(samples)}}, {}};
}

TensorFile run(const std::string& component, const Job& job) {
  using namespace models;
  static const std::map<std::string, TensorFile (*)(const Job&)> kComponents = {
      {"flux", run_flux},
      {"flux-rope", run_rope<FluxTransformer2DModel, FluxTransformerConfig>},
      {"qwen-image", run_qwen_image},
      {"qwen-image-rope", run_rope<QwenImageTransformer2DModel, QwenImageTransformerConfig>},
      {"z-image", run_z_image},
      {"z-image-rope", run_rope<ZImageTransformer2DModel, ZImageTransformerConfig>},
      {"vae", run_vae},
      {"scheduler", run_scheduler}};
  return kComponents.at(component)(job);
}

}  // namespace
}  // namespace rtlynx::tests

int main(int argc, char** argv) {
  if (argc != 6 && argc != 7) {
    std::fprintf(stderr, "usage: image_parity COMPONENT FOLDER INPUT OUTPUT DTYPE [MODE]\n");
    return 2;
  }
  try {
    const c10::InferenceMode inference;
    rtlynx::tests::Job job = {argv[2], rtlynx::read_tensor_file(argv[3]).tensors, {}};
    job.placement.dtype = std::string(argv[5]) == "bf16" ? at::kBFloat16 : at::kFloat;
    if (argc == 7) job.mode = rtlynx::linear_mode_from_name(argv[6]);
    rtlynx::write_tensor_file(argv[4], rtlynx::tests::run(argv[1], job));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
