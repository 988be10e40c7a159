#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/kernels/linear_on_cuda.h"

namespace rtlynx::bench {
namespace {

/// The table's columns after the shape and the dense time.
constexpr CudaContestant kColumns[] = {CudaContestant::kCslProduct, CudaContestant::kSpmm,
                                       CudaContestant::kLinearNoBranch, CudaContestant::kLinear,
                                       CudaContestant::kEngine};

std::string factor(double value) {
  return value > 0 ? fmt::format("{:.3f}x", value) : "-";
}

/// TFLOP/s of the dense product that a time stands for.
double tera(const LinearShape& shape, double microseconds) {
  const double work = 2e-6 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  return microseconds > 0 ? work / microseconds : 0;
}

}  // namespace

const char* contestant_name(CudaContestant contestant) {
  switch (contestant) {
    case CudaContestant::kTorchLinear: return "at::linear";
    case CudaContestant::kCublasLt: return "cublaslt";
    case CudaContestant::kCslCompress: return "torch cusparselt compress";
    case CudaContestant::kCslProduct: return "torch cusparselt product";
    case CudaContestant::kSpmm: return "spmm";
    case CudaContestant::kPruneCompress: return "prune_compress";
    case CudaContestant::kLoraDown: return "x l_a";
    case CudaContestant::kLinear: return "linear with branch";
    case CudaContestant::kLinearNoBranch: return "linear";
    case CudaContestant::kEngine: return "engine by plan";
    case CudaContestant::kCount: break;
  }
  return "unknown";
}

double CudaBenchRow::dense_us() const {
  const double torch = of(CudaContestant::kTorchLinear).median_us, lt = of(CudaContestant::kCublasLt).median_us;
  return lt > 0 ? std::min(torch, lt) : torch;
}

double CudaBenchRow::speedup(CudaContestant contestant) const {
  const double time = of(contestant).median_us;
  return time > 0 ? dense_us() / time : 0;
}

double CudaBenchRow::sparse_cost_percent() const {
  const double whole = of(CudaContestant::kLinear).median_us;
  return whole > 0 ? 100 * of(CudaContestant::kPruneCompress).median_us / whole : 0;
}

std::string cuda_header_line() {
  return fmt::format("{:>19} {:>10} {:>6} {:>10} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8} {}\n", "m n k", "dense us", "TF/s",
                     "cusparselt", "spmm", "linear", "+branch", "engine", "prune %", "error", "plan");
}

std::string cuda_line_of(const CudaBenchRow& row) {
  const LinearShape& s = row.shape;
  std::string text = fmt::format("{:>19} {:>10.1f} {:>6.0f}", fmt::format("{} {} {}", s.m, s.n, s.k), row.dense_us(),
                                 tera(s, row.dense_us()));
  int width = 10;
  for (const CudaContestant column : kColumns) {
    text += fmt::format(" {:>{}}", factor(row.speedup(column)), width);
    width = 8;
  }
  return text + fmt::format(" {:>7.1f} {:>8.1e} {}\n", row.sparse_cost_percent(), row.max_error,
                            row.plan.substr(0, row.plan.find(':')));
}

std::string cuda_means_line(const std::vector<CudaBenchRow>& rows) {
  std::string text = fmt::format("geometric means over the faster of at::linear and cuBLASLt, {} shapes:", rows.size());
  for (const CudaContestant column : kColumns) {
    double logarithms = 0;
    int count = 0;
    for (const CudaBenchRow& row : rows) {
      if (row.speedup(column) <= 0) continue;
      logarithms += std::log(row.speedup(column));
      ++count;
    }
    if (count == 0) continue;
    text += fmt::format("  {} {:.3f}x", contestant_name(column), std::exp(logarithms / count));
    if (count < static_cast<int>(rows.size())) text += fmt::format(" ({} shapes)", count);
  }
  return text + "\n";
}

std::string cuda_jsonl_of(const std::vector<CudaBenchRow>& rows) {
  std::string text;
  for (const CudaBenchRow& row : rows) {
    const LinearShape& s = row.shape;
    for (int i = 0; i < kCudaContestants; ++i) {
      const auto contestant = static_cast<CudaContestant>(i);
      const CudaTiming& timing = row.of(contestant);
      if (timing.median_us <= 0) continue;
      text += fmt::format(
          R"({{"bench":"linear-cuda","gpu":"{}","commit":"{}","dtype":"bf16","m":{},"n":{},"k":{},"count":{},"rank":{},)"
          R"("contestant":"{}","median_us":{:.3f},"best_us":{:.3f},"worst_us":{:.3f},"dense_tflops":{:.1f},)"
          R"("over_dense":{:.4f},"sm_mhz":{},"watts":{:.0f},"buffer_sets":{},"max_error":{:.2e},"plan":"{}"}})"
          "\n",
          row.gpu, row.commit, s.m, s.n, s.k, s.count, row.rank, contestant_name(contestant), timing.median_us,
          timing.best_us, timing.worst_us, tera(s, timing.median_us), row.speedup(contestant), timing.sm_mhz,
          timing.watts, row.buffer_sets, row.max_error, row.plan);
    }
  }
  return text;
}

}  // namespace rtlynx::bench
