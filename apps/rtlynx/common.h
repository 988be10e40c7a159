#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "linear/linear.h"
#include "pipeline/flux_pipeline.h"
#include "rtlynx/status.h"
#include "verbs.h"

namespace rtlynx::cli {

/// How a verb runs the transformer's linears.
struct SparseOptions {
  std::string mode = "dense";
  std::string plan = "auto";
  std::string adapter;
};

/// Adds --mode, --adapter and --plan (with --require-sparse as a short form of --plan require).
void add_sparse_options(CLI::App& verb, SparseOptions& options);

/// What verbs that make many scenes have in common.
struct SceneOptions {
  int64_t num_prompts;
  int64_t steps = 20;
  int64_t batch_size = 8;
  int64_t seed = 1;
  double guidance_scale = 3.5;
};

/// Adds --num-prompts, --steps, --guidance, --batch-size and --seed.
void add_scene_options(CLI::App& verb, SceneOptions& options);

/// The transformer that adapters are made for.
inline constexpr std::string_view kTransformerClass = "FluxTransformer2DModel";

/// io::fingerprint() of the model's transformer.
std::string transformer_fingerprint(const std::string& model);

/// Sets the number of threads and resolves device and dtype. Throws Error(kUnsupported) for a GPU that is not there.
Placement prepare(const CommonOptions& options);

/// Loads the model and puts its linears into the mode; says on standard error what it did when verbose.
pipeline::FluxPipeline load_pipeline(const std::string& model, const CommonOptions& common,
                                     const SparseOptions& sparse);

/// The adapter given, or `rtlynx-r*-*.safetensors` beside the model's folders when there is exactly one.
std::filesystem::path find_adapter(const std::string& model, const std::string& adapter);

PlanPolicy parse_plan(const std::string& text);

/// The scorer that knows the model's scenes: `<model>-scorer`, beside the model folder.
std::filesystem::path find_scorer(const std::string& model);

/// A UTF-8 text file. Throws Error(kBadPrompt) where it is not UTF-8, kOutOfMemory where it is larger.
std::string read_text(const std::filesystem::path& path, std::size_t max_bytes);

/// The lines of a UTF-8 text file of at most 16 MiB, without empty ones.
std::vector<std::string> read_lines(const std::filesystem::path& path);

/// The first prompts of the file; where none is named, scenes that the model's scorer knows.
std::vector<std::string> read_prompts(const std::string& model, const std::string& prompt_file,
                                      const SceneOptions& scenes);

/// The greatest resident memory of this process so far, in bytes.
int64_t peak_memory_bytes();

}  // namespace rtlynx::cli
