#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "calibration/damage.h"
#include "calibration/skip_search.h"
#include "io/adapter.h"
#include "linear/linear.h"

namespace rtlynx::calibration {

struct SkipOptions {
  std::filesystem::path output;  ///< the adapter with the decisions; the unfinished run lives in `<output>.skip/`
  SkipSearchOptions search;
  DamageOptions damage;
  /// The milliseconds that running a linear sparse saves for the m tokens of one picture; empty: FLOPs count instead.
  std::function<double(int64_t m, int64_t n, int64_t k)> saved_ms;
  /// More that decides the velocities (model's fingerprint, guidance_scale, size, dtype): part of the run's identity.
  nlohmann::json settings = nlohmann::json::object();
  bool keep_state = false;  ///< leave `<output>.skip/` behind: another budget then starts from what is measured
};

/// What is done and what is left. `done` and `total` count denoising steps of the dense model, then measurements.
struct SkipProgress {
  enum class Stage { kDense, kMeasure };
  Stage stage = Stage::kDense;
  int64_t done = 0;
  int64_t total = 0;  ///< of measurements: an estimate, better from round to round
};

struct SkipResult {
  io::Adapter adapter;
  SkipChoice choice;
  /// Of each linear of the model, in the model's order, as in `choice`:
  std::vector<std::string> names;
  std::vector<double> shares;        ///< of all FLOPs
  std::vector<double> local_errors;  ///< the adapter's error_after; 0 where it has no factors
};

/// Chooses the linears that do the most damage to the model's prediction for the FLOPs or the time that they would
/// save, decides that they stay dense, and writes the adapter with the decisions and their reasons; every factor of
/// `adapter` is kept, so that mode sa-nc-lora still prunes all. Decisions that `adapter` had from an earlier choice are
/// not looked at. The linears must be dense and are dense afterwards, without branches.
/// Killed at any moment and called again it continues with the loss of at most one measurement, and the bytes are those
/// of an uninterrupted run on the same machine with the same number of threads. Throws Error: kInvalidArgument,
/// kAdapterMismatch, kOtherRun, kNonFinite, kCancelled (progress returned false), what `model` throws.
SkipResult choose_skips(std::span<Linear* const> linears, const VelocityModel& model, const io::Adapter& adapter,
                        const std::string& origin, const SkipOptions& options,
                        const std::function<bool(const SkipProgress&)>& progress = {});

}  // namespace rtlynx::calibration
