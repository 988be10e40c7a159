#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/shapes.h"

namespace rtlynx::bench {

struct CudaBenchOptions {
  std::string shapes = "shapes/hopper.txt";
  int rounds = 9;
  int64_t rank = 64;     ///< of the whole linear's low-rank branch, 1..128
  std::string commit{};  ///< written into the results as it is
};

/// The contestants. Those that cannot run a shape (cuSPARSELt on odd sizes, our kernels on k % 64) have no times there.
enum class CudaContestant {
  kTorchLinear,     ///< at::linear with bias: what a user calls
  kCublasLt,        ///< the fastest of the first eight algorithms of cuBLASLt's heuristic, without bias
  kCslCompress,     ///< torch's cuSPARSELt: compressing an X that is pruned already (torch has no pruning of 1 x 4)
  kCslProduct,      ///< torch's cuSPARSELt: the product, algorithm searched by torch
  kSpmm,            ///< ours: the product on compressed X, with scale
  kPruneCompress,   ///< ours: dense X to compressed X and scale
  kLoraDown,        ///< X L_A by cuBLAS
  kLinear,          ///< ours, whole: dense X in, scale, branch and bias included, through the engine
  kLinearNoBranch,  ///< the same without the branch
  kEngine,          ///< the engine's Linear, which runs dense where its plan says so
  kCount
};
inline constexpr int kCudaContestants = static_cast<int>(CudaContestant::kCount);
/// "at::linear", "cublaslt", ...
const char* contestant_name(CudaContestant contestant);

/// Microseconds of one call over the rounds; all 0 for a contestant that could not run.
struct CudaTiming {
  double median_us = 0;
  double best_us = 0;
  double worst_us = 0;
  unsigned sm_mhz = 0;  ///< sampled during the last round
  double watts = 0;
};

/// One shape. All contestants ran in turns in the same rounds, on buffers that rotate past the L2 cache.
struct CudaBenchRow {
  LinearShape shape;
  std::string gpu;
  int64_t rank = 0;
  std::string commit;
  CudaTiming timings[kCudaContestants];
  std::string plan;      ///< the engine's verdict and reason
  double max_error = 0;  ///< of our whole linear against fp64 on a few rows, as a share of the largest |y|
  int buffer_sets = 1;   ///< of X, W and Y that the calls rotate over

  const CudaTiming& of(CudaContestant contestant) const { return timings[static_cast<int>(contestant)]; }
  /// The faster of torch's linear and cuBLASLt.
  double dense_us() const;
  /// dense_us over the contestant's median; 0 where it could not run.
  double speedup(CudaContestant contestant) const;
  /// prune_compress as a share of the whole linear, in per cent: the paper's column.
  double sparse_cost_percent() const;
};

/// Prints a line a shape as it is measured. Random normal bf16 data. Throws Error: kUnsupported without a Hopper GPU or
/// in a build without CUDA, a shape list that cannot be read, bad options.
std::vector<CudaBenchRow> run_linear_cuda_bench(const CudaBenchOptions& options);

/// The table's first line and one line of it, each with its newline; the last line with geometric means.
std::string cuda_header_line();
std::string cuda_line_of(const CudaBenchRow& row);
std::string cuda_means_line(const std::vector<CudaBenchRow>& rows);
/// One JSON object a line for each shape and contestant.
std::string cuda_jsonl_of(const std::vector<CudaBenchRow>& rows);
/// Bars of the speed-ups as an SVG picture.
std::string cuda_plot_of(const std::vector<CudaBenchRow>& rows);

}  // namespace rtlynx::bench
