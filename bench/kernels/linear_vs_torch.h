#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/shapes.h"
#include "rtlynx/linear.h"

namespace rtlynx::bench {

/// kCpu counts the processor time of this process, divided by the threads: on a machine that others keep busy it tells
/// more than the wall, though their traffic in the shared caches remains in it.
enum class BenchClock { kWall, kCpu };

struct LinearBenchOptions {
  std::string shapes = "shapes/mini_flux.txt";
  std::vector<DType> dtypes{DType::kF32, DType::kBF16};
  std::vector<int> threads{1, 2};
  int rounds = 9;
  int64_t rank = 0;  ///< of the sparse linear's low-rank branch; torch's linear has none
  BenchClock clock = BenchClock::kWall;
};

/// Milliseconds of one call over the rounds.
struct Timing {
  double median_ms = 0;
  double best_ms = 0;
};

/// One shape, type and thread count. Every contender of a row ran in the same rounds, one after the other.
struct LinearBenchRow {
  LinearShape shape;
  DType dtype = DType::kF32;
  int threads = 1;
  BenchClock clock = BenchClock::kWall;
  int64_t rank = 0;
  Timing linear;         ///< torch's F.linear
  Timing prepacked;      ///< torch's linear with weights reordered for oneDNN beforehand; F.linear where it can't
  Timing sparse;         ///< ours: pruning, scale, bias and low-rank branch included, weights packed beforehand
  double max_error = 0;  ///< against fp64 on a few rows, as a share of the largest |y|
  LinearPlan plan;

  /// Torch's faster way over ours.
  double speedup_median() const;
  double speedup_best() const;
};

/// Prints one line a row as it is measured. The thread settings of torch and of the kernel library are restored. Throws
/// Error (a shape list that cannot be read; bad options) and whatever torch throws.
std::vector<LinearBenchRow> run_linear_bench(const LinearBenchOptions& options);

/// The table's first line and one line of it, each with its newline.
std::string header_line();
std::string line_of(const LinearBenchRow& row);
/// The rows as text: GF/s are dense-equivalent, 2 m n k / t, median/best.
std::string table_of(const std::vector<LinearBenchRow>& rows);
/// One JSON object a line: machine, SIMD target, oneDNN's limit, load, shape, times.
std::string jsonl_of(const std::vector<LinearBenchRow>& rows);

}  // namespace rtlynx::bench
