#include "bench/kernels/linear_on_cuda.h"

#include <ATen/ATen.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>

#include "linear/cuda_kernels.h"
#include "linear/linear.h"
#include "linear/sparse_ops.h"
#include "linear/weights.h"
#include "rtlynx/status.h"
#include "tests/kernels/sm90a/check/dense_product.h"
#include "tests/kernels/sm90a/check/gpu_monitor.h"
#include "tests/kernels/sm90a/check/stopwatch.h"

namespace rtlynx::bench {
namespace {

using check::DenseProduct;
using check::GpuMonitor;
using check::Stopwatch;

constexpr int kWarmUpRounds = 2;
constexpr double kBatchSeconds = 0.004;
/// Three times the 50 MiB of L2: what a call reads was last touched that many bytes ago.
constexpr int64_t kRotatedBytes = int64_t{150} << 20;
constexpr int64_t kMostSets = 16;

at::Tensor gaussian(at::IntArrayRef sizes, double scale = 1) {
  return (at::randn(sizes, at::device(at::kCUDA).dtype(at::kFloat)) * scale).to(at::kBFloat16);
}

int64_t sets_for(const LinearShape& s) {
  const int64_t bytes = 2 * (s.m * s.k + s.n * s.k + s.m * s.n);
  return std::clamp<int64_t>((kRotatedBytes + bytes - 1) / bytes, 1, kMostSets);
}

/// Whether an optional contestant runs here at all; torch's message goes to standard error.
bool runs(const char* what, const std::function<void()>& call) try {
  call();
  return true;
} catch (const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  fmt::print(stderr, "{} is left out: {}\n", what, text.substr(0, text.find('\n')));
  return false;
}

Linear make_linear(const at::Tensor& weight, const at::Tensor& bias, const LoraFactors& lora) {
  Weights weights({{"bench.weight", weight}, {"bench.bias", bias}}, "bench", {weight.device(), at::kBFloat16});
  Linear linear(weights, "bench", weight.size(1), weight.size(0), true);
  linear.set_lora(lora.lora_a, lora.lora_b);
  linear.set_mode(LinearMode::kSaNcLora, PlanPolicy::kAuto);
  return linear;
}

/// One of the sets of tensors that the calls rotate over.
struct Buffers {
  at::Tensor x, weight, bias, y, blocks, scale, csl_compressed;
  CudaLinear prepared;
  std::unique_ptr<DenseProduct> dense;
  Linear engine;

  Buffers(const LinearShape& s, const LoraFactors& lora)
      : x(gaussian({s.m, s.k})),
        weight(gaussian({s.n, s.k}, 1 / std::sqrt(static_cast<double>(s.k)))),
        bias(gaussian({s.n})),
        y(at::empty({s.m, s.n}, x.options())),
        prepared(prepare_cuda_linear(weight, bias, lora)),
        dense(std::make_unique<DenseProduct>(s.m, s.n, s.k, x.data_ptr(), weight.data_ptr(), y.data_ptr())),
        engine(make_linear(weight, bias, lora)) {}
};

class ShapeBench {
 public:
  ShapeBench(const LinearShape& shape, const CudaBenchOptions& options) : shape_(shape), options_(options) {
    at::manual_seed(0);
    lora_ = {gaussian({shape.k, options.rank}, 0.01), gaussian({options.rank, shape.n}, 0.01)};
    for (int64_t i = 0; i < sets_for(shape); ++i) sets_.emplace_back(shape, lora_);
    add_contestants();
  }

  CudaBenchRow measure(const GpuMonitor& monitor) {
    CudaBenchRow row;
    row.shape = shape_;
    row.rank = options_.rank;
    row.commit = options_.commit;
    row.buffer_sets = static_cast<int>(sets_.size());
    race(monitor, row);
    const LinearDecision decision = sets_.front().engine.decide(shape_.m);
    row.plan = fmt::format("{}: {}", decision.sparse ? "sparse" : "dense", decision.why);
    if (has_kernels_) row.max_error = error();
    return row;
  }

 private:
  struct Entry {
    CudaContestant who;
    std::function<void(Buffers&)> call;
    int repeats = 1;
    std::vector<double> seconds;
  };

  void add(CudaContestant who, std::function<void(Buffers&)> call) {
    entries_.push_back({who, std::move(call), 1, {}});
  }

  void add_contestants() {
    add(CudaContestant::kTorchLinear, [](Buffers& b) { at::linear(b.x, b.weight, b.bias); });
    add(CudaContestant::kCublasLt, [](Buffers& b) { b.dense->run(); });
    add(CudaContestant::kEngine, [](Buffers& b) { b.engine(b.x); });
    add_cusparselt();
    has_kernels_ = cuda_refusal(sets_.front().weight, options_.rank).empty();
    if (!has_kernels_) return;
    for (Buffers& b : sets_) std::tie(b.blocks, b.scale) = prune_compress_on_cuda(b.x);
    add(CudaContestant::kSpmm, [](Buffers& b) {
      spmm_on_cuda({b.blocks, b.scale, b.prepared.weight, {}, {}, {}}, true);
    });
    add(CudaContestant::kPruneCompress, [](Buffers& b) { prune_compress_on_cuda(b.x); });
    add(CudaContestant::kLoraDown, [](Buffers& b) { at::linear(b.x, b.prepared.lora_down); });
    add(CudaContestant::kLinear, [](Buffers& b) { run_cuda_linear(b.prepared, b.x, LinearMode::kSaNcLora); });
    add(CudaContestant::kLinearNoBranch, [](Buffers& b) { run_cuda_linear(b.prepared, b.x, LinearMode::kSaNc); });
  }

  void add_cusparselt() {
    int64_t algorithm = 0;
    const bool works = runs("torch's cuSPARSELt", [&] {
      for (Buffers& b : sets_) b.csl_compressed = at::_cslt_compress(prune_24(b.x));
      algorithm = at::_cslt_sparse_mm_search(sets_.front().csl_compressed, sets_.front().weight.t());
    });
    if (!works) return;
    pruned_ = prune_24(sets_.front().x);
    add(CudaContestant::kCslCompress, [this](Buffers&) { at::_cslt_compress(pruned_); });
    add(CudaContestant::kCslProduct,
        [algorithm](Buffers& b) { at::_cslt_sparse_mm(b.csl_compressed, b.weight.t(), {}, {}, {}, false, algorithm); });
  }

  /// Queues `repeats` calls over the sets; every batch begins with the set after the last one.
  Stopwatch batch(Entry& entry) {
    return Stopwatch(entry.repeats, [&] { entry.call(sets_[next_set_++ % sets_.size()]); });
  }

  /// All contestants take turns, in an order that rotates from round to round, so that clocks and power hit them alike.
  void race(const GpuMonitor& monitor, CudaBenchRow& row) {
    for (Entry& entry : entries_) {
      for (Buffers& b : sets_) entry.call(b);
      entry.repeats = 2;
      entry.repeats = std::clamp(static_cast<int>(kBatchSeconds / batch(entry).seconds()), 2, 100);
    }
    const int rounds = options_.rounds + kWarmUpRounds;
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < entries_.size(); ++i) {
        Entry& entry = entries_[(i + 3 * static_cast<std::size_t>(round)) % entries_.size()];
        CudaTiming& timing = row.timings[static_cast<int>(entry.who)];
        const Stopwatch watch = batch(entry);
        if (round + 1 == rounds) {  // while the batch runs
          const GpuMonitor::Sample sample = monitor.sample();
          timing.sm_mhz = sample.sm_mhz;
          timing.watts = sample.watts;
        }
        const double seconds = watch.seconds();
        if (round >= kWarmUpRounds) entry.seconds.push_back(seconds);
      }
    }
    for (Entry& entry : entries_) {
      CudaTiming& timing = row.timings[static_cast<int>(entry.who)];
      std::sort(entry.seconds.begin(), entry.seconds.end());
      timing.median_us = 1e6 * entry.seconds[entry.seconds.size() / 2];
      timing.best_us = 1e6 * entry.seconds.front();
      timing.worst_us = 1e6 * entry.seconds.back();
    }
  }

  /// The largest |y - definition| over the last eight rows, in fp64, as a share of the largest |y|.
  double error() {
    const Buffers& b = sets_.front();
    const int64_t rows = std::min<int64_t>(8, shape_.m);
    const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const at::Tensor y = run_cuda_linear(b.prepared, b.x, LinearMode::kSaNcLora).narrow(0, shape_.m - rows, rows);
    const at::Tensor x = b.x.narrow(0, shape_.m - rows, rows), kept = wide(prune_24(x));
    const at::Tensor scale = (wide(x).square().sum(1, true) / (kept.square().sum(1, true) + 1e-8)).sqrt();
    const at::Tensor expected = scale * kept.matmul(wide(b.weight).t()) + wide(b.bias) +
                                wide(x).matmul(wide(lora_.lora_a)).matmul(wide(lora_.lora_b));
    return ((wide(y) - expected).abs().max() / expected.abs().max()).item<double>();
  }

  LinearShape shape_;
  const CudaBenchOptions& options_;
  LoraFactors lora_;
  std::vector<Buffers> sets_;
  at::Tensor pruned_;
  bool has_kernels_ = false;
  std::vector<Entry> entries_;
  std::size_t next_set_ = 0;
};

void check_options(const CudaBenchOptions& options) {
  if (options.rounds < 1 || options.rounds > 1000) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("bench: rounds must be in 1..1000 (got {})", options.rounds));
  }
  if (options.rank < 1 || options.rank > 128) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("bench: the rank must be in 1..128 (got {})", options.rank));
  }
  if (!at::hasCUDA() || at::getNumGPUs() == 0) {
    throw Error(ErrorCode::kUnsupported, "--device cuda: libtorch finds no usable GPU on this machine");
  }
  const at::Tensor probe = at::empty({64, 64}, at::device(at::kCUDA).dtype(at::kBFloat16));
  if (const std::string refusal = cuda_refusal(probe, 0); !refusal.empty()) {
    throw Error(ErrorCode::kUnsupported, "bench linear --device cuda: " + refusal);
  }
}

}  // namespace

std::vector<CudaBenchRow> run_linear_cuda_bench(const CudaBenchOptions& options) {
  const auto shapes = read_shapes(options.shapes);
  throw_if_error(shapes.status());
  const c10::InferenceMode guard;
  check_options(options);
  cudaDeviceProp properties{};
  check::require(cudaGetDeviceProperties(&properties, 0), "device properties");
  const GpuMonitor monitor;
  fmt::print("{}, rank {}, medians of {} rounds; speed-ups over the faster of at::linear and cuBLASLt\n{}",
             properties.name, options.rank, options.rounds, cuda_header_line());
  std::vector<CudaBenchRow> rows;
  for (const LinearShape& shape : shapes.value()) {
    if (shape.m * shape.n * shape.k == 0) continue;
    rows.push_back(ShapeBench(shape, options).measure(monitor));
    rows.back().gpu = properties.name;
    fmt::print("{}", cuda_line_of(rows.back()));
    std::fflush(stdout);
  }
  fmt::print("{}", cuda_means_line(rows));
  return rows;
}

}  // namespace rtlynx::bench
