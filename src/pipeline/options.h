#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace rtlynx::pipeline {

/// What one denoising run needs beyond the prompts and the noise. Names and defaults are FluxPipeline's.
struct DenoiseOptions {
  int64_t width = 0;   ///< pixels, a multiple of FluxPipeline::size_multiple(); 0: FluxPipeline::default_size()
  int64_t height = 0;  ///< the same
  int64_t num_inference_steps = 28;
  double guidance_scale = 3.5;  ///< distilled guidance; without effect on a model that has no guidance embedding
  /// Classifier-free guidance; on where it is above 1, against the negative prompt (an empty one counts as a prompt;
  /// diffusers wants negative_prompt="" for that). One more forward a step.
  double true_cfg_scale = 1.0;
};

struct GenerateOptions : DenoiseOptions {
  std::string prompt;           ///< UTF-8
  std::string negative_prompt;  ///< UTF-8; used only where true_cfg_scale > 1
  uint64_t seed = 0;            ///< image i starts from the noise of seed + i; only the low 32 bits count, as in torch
  int64_t num_images_per_prompt = 1;
  int64_t max_sequence_length = 0;  ///< T5 tokens, at most 512; 0: min(512, tokenizer_2's model_max_length)
};

/// 8-bit RGB, row-major, 3 bytes a pixel, no padding.
struct Image {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgb;
  uint64_t seed = 0;  ///< the seed of the noise it was made from
};

/// Called after each denoising step with the steps done, the number of steps and the seconds since the first began;
/// returning false stops the run with Error(kCancelled).
using ProgressCallback = std::function<bool(int64_t step, int64_t total, double seconds)>;

/// Called in each denoising step, counted from 0, with the packed latents that enter it and the velocity that the model
/// predicts for them, both [N, tokens, channels].
using StepObserver = std::function<void(int64_t step, const at::Tensor& latents, const at::Tensor& velocity)>;

}  // namespace rtlynx::pipeline
