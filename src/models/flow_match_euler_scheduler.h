#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "io/json.h"

namespace rtlynx::models {

/// diffusers' FlowMatchEulerDiscreteScheduler as the pipelines of FLUX, Qwen-Image and Z-Image drive it: start sigmas
/// linspace(1, 1/N, N), shifted, optionally stretched to a terminal value, 0 appended. Immutable; every method is a
/// pure function. Published settings:
///   FLUX.1-dev   dynamic exponential shift, mu 0.5 at 256 tokens to 1.15 at 4,096
///   Qwen-Image   the same from 0.5 at 256 to 0.9 at 8,192, then stretched to end at 0.02
///   Z-Image      static shift 6; Z-Image-Turbo 3
class FlowMatchEulerScheduler {
 public:
  enum class TimeShift { kExponential, kLinear };
  /// By which linspace a pipeline makes its start sigmas: they differ in the last bit of fp32.
  enum class StartSigmas {
    kNumpy,  ///< numpy's, fp64 (FluxPipeline, QwenImagePipeline)
    kTorch,  ///< torch's, fp32 (ZImagePipeline)
  };

  /// The keys of scheduler_config.json, with diffusers' defaults.
  struct Settings {
    int64_t num_train_timesteps = 1000;
    double shift = 1.0;  ///< used where use_dynamic_shifting is false
    bool use_dynamic_shifting = false;
    double base_shift = 0.5;
    double max_shift = 1.15;
    int64_t base_image_seq_len = 256;
    int64_t max_image_seq_len = 4096;
    std::optional<double> shift_terminal;
    TimeShift time_shift_type = TimeShift::kExponential;
  };

  /// Reads scheduler_config.json. Throws kUnsupported for karras, exponential, beta, flow or inverted sigmas and for
  /// stochastic sampling, kBadConfig for values out of bounds.
  explicit FlowMatchEulerScheduler(const io::Config& config);
  explicit FlowMatchEulerScheduler(const Settings& settings) : settings_(settings) {}
  static FlowMatchEulerScheduler load(const std::filesystem::path& folder);

  /// num_inference_steps + 1 fp32 values from the first sigma down to 0, bit for bit those of diffusers with NumPy 2
  /// (fp32 arrays, fp64 scalars rounded to fp32 where they meet an array). `image_seq_len` counts packed tokens.
  /// Throws kInvalidArgument where the schedule would not be finite (1 step with shift_terminal).
  std::vector<float> sigmas(int64_t num_inference_steps, int64_t image_seq_len,
                            StartSigmas start = StartSigmas::kNumpy) const;
  /// What the model is told at `sigma`: sigma x num_train_timesteps, in fp32.
  float timestep(float sigma) const { return sigma * static_cast<float>(settings_.num_train_timesteps); }

  /// One Euler step: sample + (sigma_next - sigma) * model_output, the sum in fp32, returned in model_output's dtype.
  /// Like diffusers, the product is rounded to model_output's dtype first.
  static at::Tensor step(const at::Tensor& model_output, const at::Tensor& sample, float sigma, float sigma_next);

  const Settings& settings() const { return settings_; }

 private:
  float shifted(float sigma, double mu) const;

  Settings settings_;
};

}  // namespace rtlynx::models
