#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "linear/weights.h"
#include "models/flux_transformer.h"
#include "pipeline/options.h"

namespace rtlynx::pipeline {

/// What the text encoders make of N prompts, in the model's dtype and on its device.
struct PromptEmbeddings {
  at::Tensor prompt_embeds;         ///< [N, max_sequence_length, joint_attention_dim]: T5, padded, no mask
  at::Tensor pooled_prompt_embeds;  ///< [N, pooled_projection_dim]: CLIP
  int64_t size() const { return prompt_embeds.size(0); }
};

/// That a text encoder does not read the end of a prompt.
struct Truncation {
  std::string encoder;         ///< "text_encoder" (CLIP) or "text_encoder_2" (T5)
  int64_t tokens_dropped = 0;  ///< more than 0
  int64_t limit = 0;           ///< tokens that it reads, the special ones included
};

/// diffusers' FluxPipeline from text to image, loaded from a diffusers folder. Same inputs on the same machine give the
/// same bytes. Not thread-safe. Everything throws Error; bad arguments are kInvalidArgument and kBadPrompt.
class FluxPipeline {
 public:
  /// `placement.dtype` is kFloat or kBFloat16; all components use it. Reads model_index.json and the seven component
  /// folders; throws kUnknownClass, kBadConfig where the components' sizes contradict each other, and the loaders'
  /// codes.
  static FluxPipeline load(const std::filesystem::path& model_folder, const Placement& placement);
  ~FluxPipeline();
  FluxPipeline(FluxPipeline&&) noexcept;
  FluxPipeline& operator=(FluxPipeline&&) noexcept;

  /// The whole way: encode_prompts, initial_latents, denoise, decode; num_images_per_prompt images, all in one batch.
  std::vector<Image> generate(const GenerateOptions& options, const ProgressCallback& progress = {});

  /// One row a prompt; prompts may differ. `max_sequence_length` as in GenerateOptions.
  PromptEmbeddings encode_prompts(const std::vector<std::string>& prompts, int64_t max_sequence_length = 0) const;
  /// The text encoders that a prompt is too long for; costs no more than the tokenizers.
  std::vector<Truncation> truncations(const std::string& prompt, int64_t max_sequence_length = 0) const;
  /// Packed noise [N, (height / multiple) * (width / multiple), in_channels], row i drawn by a CPU generator seeded
  /// with seeds[i]: equal to diffusers with a list of torch.Generator("cpu").
  at::Tensor initial_latents(const std::vector<uint64_t>& seeds, int64_t width, int64_t height) const;
  /// Runs the schedule on N packed latents with N prompts; `negative` has N rows or is nullptr (then true_cfg_scale
  /// must be at most 1). Returns the final packed latents in the model's dtype. kNonFinite names step, block and
  /// tensor; kCancelled where `progress` returned false.
  at::Tensor denoise(const PromptEmbeddings& prompts, const PromptEmbeddings* negative, at::Tensor latents,
                     const DenoiseOptions& options, const ProgressCallback& progress = {});
  /// Of every denoise() from now on. Returns the observer that was there before; an empty one removes it.
  StepObserver set_step_observer(StepObserver observer);
  /// What the model predicts in step `step` (from 0) of denoise() for latents that enter it, without guidance against
  /// a negative prompt: bit by bit the same velocity. kInvalidArgument for a step that the schedule does not have.
  at::Tensor predict_velocity(const PromptEmbeddings& prompts, const at::Tensor& latents, int64_t step,
                              const DenoiseOptions& options);
  /// Packed latents to images, one by one through the VAE; `seeds` (N) are only copied into the images.
  std::vector<Image> decode(const at::Tensor& latents, int64_t width, int64_t height,
                            const std::vector<uint64_t>& seeds) const;

  models::FluxTransformer2DModel& transformer();
  const Placement& placement() const;
  /// Width and height when none is asked for, in pixels: the VAE config's sample_size, which FLUX.1-dev sets to 1024.
  int64_t default_size() const;
  /// Width and height must be multiples of it: VAE factor x packing 2, 16 for FLUX.1-dev.
  int64_t size_multiple() const;
  /// min(512, tokenizer_2's model_max_length).
  int64_t default_max_sequence_length() const;

 private:
  struct State;
  explicit FluxPipeline(std::unique_ptr<State> state);
  /// The same with the default size filled in; throws as check_size and check_denoise_options do.
  DenoiseOptions resolved(const DenoiseOptions& options) const;

  std::unique_ptr<State> state_;
};

}  // namespace rtlynx::pipeline
