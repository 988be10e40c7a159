#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "calibration/skip_search.h"
#include "calibration/state_folder.h"
#include "linear/linear.h"

namespace rtlynx::calibration {

/// A model that predicts velocities, as the measurement sees it. Equal arguments must give equal results.
struct VelocityModel {
  /// Told in each step, from 0, what enters it and what the model predicts, both [B, ...]; false stops.
  using OnStep = std::function<bool(int64_t step, const at::Tensor& latents, const at::Tensor& velocity)>;
  /// Denoises a batch of prompts in `steps` steps, the noise of prompt i drawn from seeds[i].
  std::function<void(const std::vector<std::string>& prompts, const std::vector<uint64_t>& seeds, int64_t steps,
                     const OnStep& on_step)>
      denoise;
  /// The velocity for latents that enter `step` of `steps`: what denoise() would tell.
  std::function<at::Tensor(const std::vector<std::string>& prompts, const at::Tensor& latents, int64_t step,
                           int64_t steps)>
      predict;
};

struct DamageOptions {
  std::vector<std::string> prompts;  ///< at least one
  uint64_t seed = 1;                 ///< prompt i starts from the noise of seed + i
  int64_t batch_size = 8;            ///< prompts that run together
  int64_t num_inference_steps = 20;
  int64_t num_timesteps = 5;  ///< of the steps, those that are measured
};

/// The middles of `count` equal parts of `steps` steps: floor((2 i + 1) steps / (2 count)).
std::vector<int64_t> spread_steps(int64_t steps, int64_t count);

/// Measures what sparse linears do to a model's prediction: the mean over prompts and timesteps of
/// sum (v - v_dense)^2 / sum v_dense^2, both velocities for the same latents of the dense trajectory. All in fp64 from
/// the velocities on; exactly 0 where no linear is sparse.
class DamageMeter {
 public:
  /// The linears must be dense, and must hold their branches where they are to be sparse. Everything that is measured
  /// goes into `state` at once, and what is there is not measured again. All arguments must outlive the meter.
  DamageMeter(std::span<Linear* const> linears, const VelocityModel& model, const DamageOptions& options,
              const StateFolder& state);

  /// Runs the dense model: latents, velocities and FLOPs. Throws Error(kCancelled) where `go_on` returns false after a
  /// step, what the model throws, kOtherRun where the state does not fit.
  void prepare(const std::function<bool(int64_t done, int64_t total)>& go_on = {});

  /// Of each linear over all prompts and one timestep: tokens x k x n. Needs prepare().
  const std::vector<int64_t>& flops() const { return flops_; }
  /// Needs prepare(). May leave the linears in other modes. Throws Error(kNonFinite) where the prediction is not
  /// finite.
  double measure(const SparseSet& sparse);

 private:
  struct Chunk {
    std::vector<std::string> prompts;
    at::Tensor latents;   ///< [timesteps, B, ...]
    at::Tensor velocity;  ///< the same shape
  };
  TensorFile run_dense(std::size_t chunk, const std::vector<uint64_t>& seeds,
                       const std::function<bool(int64_t step)>& go_on) const;
  void set(const SparseSet& sparse) const;

  std::span<Linear* const> linears_;
  const VelocityModel& model_;
  const DamageOptions& options_;
  const StateFolder& state_;
  std::vector<int64_t> steps_;
  std::vector<Chunk> chunks_;
  std::vector<int64_t> flops_;
};

}  // namespace rtlynx::calibration
