#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "calibration/statistics.h"
#include "io/adapter.h"
#include "linear/linear.h"

namespace rtlynx::calibration {

/// Told after each step of a denoising run; returning false stops it.
using StepCallback = std::function<bool(int64_t step, int64_t total)>;

/// Runs prompts (a batch) through the dense model over `steps` timesteps, the noise of prompt i drawn from seeds[i].
/// The first dimension of every linear's input is the prompt. Equal arguments must give equal activations.
using RunPrompts = std::function<void(const std::vector<std::string>& prompts, const std::vector<uint64_t>& seeds,
                                      int64_t steps, const StepCallback& on_step)>;

struct CalibrationOptions {
  std::filesystem::path output;      ///< the adapter; the unfinished run lives in `<output>.calibration/`
  std::vector<std::string> prompts;  ///< at least one; 128 is the usual number
  uint64_t seed = 0;                 ///< prompt i starts from the noise of seed + i
  int64_t batch_size = 8;            ///< prompts that run together: a chunk, the unit of the statistics
  int64_t num_inference_steps = 20;
  int64_t rank = 64;
  double ridge = 1e-3;       ///< times the mean diagonal of X^T X
  int64_t token_stride = 1;  ///< of each call every n-th token is used; 1 takes all
  /// Bytes for the sums (16 k^2 for each distinct input). Where all do not fit, the prompts run once per group of
  /// linears that does.
  int64_t memory_limit = int64_t{8} << 30;
  /// The sums are saved after the first chunk that ends this many seconds after the last save, and after the last chunk
  /// of a pass. They are large (16 k^2 bytes per input), so saving every chunk can cost more than the chunk. What a
  /// kill can lose is this time and one chunk, or one linear's solution. Without influence on the result.
  double save_interval_seconds = 60;
  std::string model_class;  ///< "FluxTransformer2DModel"
  std::string fingerprint;  ///< io::fingerprint() of the transformer's weights
  /// More that decides the activations (guidance_scale, width, height, dtype), scalars: part of the run's identity, and
  /// written into the adapter.
  nlohmann::json settings = nlohmann::json::object();
  bool keep_state = false;  ///< leave `<output>.calibration/` behind
};

/// What is done and what is left. `done` and `total` count denoising steps while gathering, linears while solving.
struct CalibrationProgress {
  enum class Stage { kGather, kSolve };
  Stage stage = Stage::kGather;
  int64_t done = 0;
  int64_t total = 0;
  int64_t resumed = 0;  ///< of `done`, what an earlier run had finished
  double seconds = 0;   ///< spent on this stage in this run
  std::string detail;   ///< the linear, or the chunk of prompts
};

struct CalibrationCallbacks {
  /// Returning false stops with Error(kCancelled); what is finished stays for the next run.
  std::function<bool(const CalibrationProgress&)> progress;
  /// Lines worth a user's eye: resumed work, damping of a singular Gram matrix, linears left dense.
  std::function<void(const std::string& line)> log;
};

/// Calibrates the linears (all in dense mode) and writes the adapter. A linear whose error the branch does not lower is
/// left dense, with the reason in the adapter. Killed at any moment and called again with the same
/// arguments it continues, and the adapter's bytes are those of an uninterrupted run on the same machine with the same
/// number of threads. Throws Error: kInvalidArgument, kOtherRun, kNonFinite (an activation, with the prompt), kSingular
/// (a linear's Gram matrix), kOutOfMemory (one input's sums pass memory_limit), kCancelled, and what `run` throws.
io::Adapter calibrate(std::span<Linear* const> linears, const RunPrompts& run, const CalibrationOptions& options,
                      const CalibrationCallbacks& callbacks = {});

}  // namespace rtlynx::calibration
