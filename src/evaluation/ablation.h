#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/apply_adapter.h"
#include "evaluation/scorer.h"
#include "io/adapter.h"
#include "pipeline/flux_pipeline.h"

namespace rtlynx::evaluation {

/// A row of the table: the linears in a mode, or dense linears on 2:4 weights.
struct Method {
  std::string name;  ///< "dense", "sw", "sa", "sa-nc", "sa-nc-lora", "sa-nc-lora-sl"
  calibration::ModelMode mode;
  bool prunes_weights = false;  ///< "sw": weights 2:4 by magnitude, groups along k
};
/// Throws Error(kInvalidArgument) that lists the names.
Method method_from_name(std::string_view name);

struct AblationOptions {
  std::vector<Method> methods;  ///< "dense" first: the others are compared with its pictures
  int64_t num_prompts = 500;    ///< scenes of draw_scenes(), at least 2
  uint64_t seed = 1;            ///< of the scenes; picture i starts from the noise of seed + i, in every row
  int64_t batch_size = 8;       ///< pictures that are made together
  int64_t sheet_columns = 6;    ///< the first pictures of each row are kept for the contact sheet
  pipeline::DenoiseOptions denoise;
  PlanPolicy policy = PlanPolicy::kSparse;
  std::optional<io::Adapter> adapter;  ///< needed by sa-nc-lora and -sl; its fingerprint must have been checked
  std::filesystem::path state;         ///< folder of the unfinished run: one file a batch; removed at the end
  std::string identity;  ///< what else decides the pictures (model's fingerprint, dtype): part of the run's identity
};

/// One row's results over all prompts.
struct MethodResult {
  std::string name;
  double accuracy = 0;                       ///< pictures in which everything is right, 0 to 1
  std::array<double, kNumHeads> per_head{};  ///< kHeadNames
  double frechet = 0;                        ///< on the scorer's features, against real renders
  std::optional<double> psnr;                ///< mean over pictures, dB, to the dense row; none for that row
  double seconds_per_step = 0;               ///< per picture, without the first step; the median batch
};

struct AblationResult {
  std::vector<MethodResult> methods;
  std::vector<std::string> captions;                   ///< of the sheet's columns
  std::vector<std::vector<pipeline::Image>> pictures;  ///< [method][column]
};

/// Told before each row of each batch and at the end: units (row x batch) done and in all.
using AblationProgress = std::function<void(int64_t done, int64_t total)>;

/// Makes the same scenes with every method. Killed and called again with the same options, it continues after the last
/// finished batch with the same results. Leaves the linears dense with their own weights. Throws Error:
/// kInvalidArgument, kOtherRun (the state folder belongs to a run with other options), what the pipeline throws.
AblationResult run_ablation(pipeline::FluxPipeline& pipeline, const Scorer& scorer, const AblationOptions& options,
                            const AblationProgress& progress = {});

}  // namespace rtlynx::evaluation
