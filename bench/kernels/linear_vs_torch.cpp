#include "bench/kernels/linear_vs_torch.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>

namespace rtlynx::bench {
namespace {

/// A measurement lasts at least this many multiplications, some 20 ms on one core.
constexpr double kMinimumWork = 1e9;

/// torch's operators of the oneDNN back end, which have no C++ declaration.
/// Nothing where oneDNN has no kernel for the type, such as bf16 without AVX-512.
std::optional<at::Tensor> reorder_weight(const at::Tensor& weight, int64_t m) try {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_reorder_linear_weight", "");
  std::vector<c10::IValue> stack{weight, m};
  op.callBoxed(&stack);
  return stack.at(0).toTensor();
} catch (const c10::Error&) {
  return std::nullopt;
}

at::Tensor prepacked_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "");
  std::vector<c10::IValue> stack{
      x, weight, bias, std::string("none"), c10::List<std::optional<at::Scalar>>(), std::string()};
  op.callBoxed(&stack);
  return stack.at(0).toTensor();
}

MatrixView view_of(const at::Tensor& t) {
  const at::Tensor rows = t.dim() == 1 ? t.unsqueeze(0) : t;
  return {t.data_ptr(), rows.size(0), rows.size(1), std::max(rows.stride(0), rows.size(1)),
          t.scalar_type() == at::kFloat ? DType::kF32 : DType::kBF16};
}

MutableMatrixView mutable_view_of(const at::Tensor& t) {
  const MatrixView view = view_of(t);
  return {t.data_ptr(), view.rows, view.cols, view.row_stride, view.dtype};
}

/// One linear's tensors; gaussian as activations and weights are, because zeros would flatter every contender.
struct Tensors {
  at::Tensor x, weight, bias, lora_a, lora_b, y;

  Tensors(const LinearShape& shape, DType dtype, int64_t rank) {
    const auto type = dtype == DType::kF32 ? at::kFloat : at::kBFloat16;
    const auto random = [&](at::IntArrayRef sizes, double scale) { return (at::randn(sizes) * scale).to(type); };
    x = random({shape.m, shape.k}, 1);
    weight = random({shape.n, shape.k}, 1 / std::sqrt(static_cast<double>(shape.k)));
    bias = random({shape.n}, 1);
    if (rank > 0) lora_a = random({shape.k, rank}, 0.01);
    if (rank > 0) lora_b = random({rank, shape.n}, 0.01);
    y = at::empty({shape.m, shape.n}, type);
  }
  SparseLinear::Parameters parameters() const {
    SparseLinear::Parameters p{view_of(weight), view_of(bias)};
    if (lora_a.defined()) p.lora_a = view_of(lora_a);
    if (lora_b.defined()) p.lora_b = view_of(lora_b);
    return p;
  }
};

/// The largest |y - definition| over eight rows, in fp64, as a share of the largest |y|.
double error_of(const Tensors& t) {
  const int64_t rows = std::min<int64_t>(8, t.x.size(0));
  const at::Tensor x = t.x.narrow(0, t.x.size(0) - rows, rows).to(at::kFloat).contiguous();
  at::Tensor pruned = at::empty_like(x);
  throw_if_error(prune(view_of(x), mutable_view_of(pruned), Backend::kReference));
  const at::Tensor xd = x.to(at::kDouble), pd = pruned.to(at::kDouble);
  const at::Tensor scale = (xd.square().sum(1, true) / (pd.square().sum(1, true) + 1e-8)).sqrt();
  at::Tensor expected = scale * pd.matmul(t.weight.to(at::kDouble).t()) + t.bias.to(at::kDouble);
  if (t.lora_a.defined()) {
    expected = expected + xd.matmul(t.lora_a.to(at::kDouble)).matmul(t.lora_b.to(at::kDouble));
  }
  const at::Tensor y = t.y.narrow(0, t.x.size(0) - rows, rows).to(at::kDouble);
  return (y - expected).abs().max().item<double>() / expected.abs().max().item<double>();
}

Timing summary(std::vector<double> milliseconds) {
  std::sort(milliseconds.begin(), milliseconds.end());
  return {milliseconds[milliseconds.size() / 2], milliseconds.front()};
}

/// Seconds: of the wall, or of this process's processors, shared out to `threads` of them.
double seconds(BenchClock clock, int threads) {
  timespec now{};
  clock_gettime(clock == BenchClock::kWall ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &now);
  const double time = static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  return clock == BenchClock::kWall ? time : time / threads;
}

/// The contenders take turns, so that what disturbs the machine disturbs all of them.
std::vector<Timing> race(const std::vector<std::function<void()>>& contenders, const LinearBenchOptions& options,
                         int repeats) {
  const int threads = at::get_num_threads();
  std::vector<std::vector<double>> times(contenders.size());
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t c = 0; c < contenders.size(); ++c) {
      contenders[c]();
      const double begin = seconds(options.clock, threads);
      for (int i = 0; i < repeats; ++i) contenders[c]();
      times[c].push_back(1e3 * (seconds(options.clock, threads) - begin) / repeats);
    }
  }
  std::vector<Timing> timings;
  for (auto& samples : times) timings.push_back(summary(std::move(samples)));
  return timings;
}

LinearBenchRow measure(const LinearShape& shape, DType dtype, const LinearBenchOptions& options) {
  at::manual_seed(0);
  const Tensors t(shape, dtype, options.rank);
  const std::optional<at::Tensor> reordered = reorder_weight(t.weight, shape.m);
  auto created = SparseLinear::create(t.parameters());
  throw_if_error(created.status());
  const SparseLinear sparse = std::move(created).value();
  const double work = static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  const int repeats = std::max(1, static_cast<int>(kMinimumWork / work));
  const auto timings = race({[&] { at::linear(t.x, t.weight, t.bias); },
                             [&] {
                               if (reordered) {
                                 prepacked_linear(t.x, *reordered, t.bias);
                               } else {
                                 at::linear(t.x, t.weight, t.bias);
                               }
                             },
                             [&] { throw_if_error(sparse.run(view_of(t.x), mutable_view_of(t.y))); }},
                            options, repeats);
  LinearBenchRow row;
  row.shape = shape;
  row.dtype = dtype;
  row.threads = at::get_num_threads();
  row.clock = options.clock;
  row.rank = options.rank;
  row.linear = timings[0];
  row.prepacked = timings[1];
  row.sparse = timings[2];
  row.max_error = error_of(t);
  row.plan = plan_linear({shape.n, shape.k, dtype, options.rank}, shape.m);
  return row;
}

/// torch's thread count, and with it the kernel library's, as it was.
class ThreadSetting {
 public:
  ~ThreadSetting() { at::set_num_threads(before_); }

 private:
  int before_ = at::get_num_threads();
};

}  // namespace

double LinearBenchRow::speedup_median() const {
  return std::min(linear.median_ms, prepacked.median_ms) / sparse.median_ms;
}

double LinearBenchRow::speedup_best() const {
  return std::min(linear.best_ms, prepacked.best_ms) / sparse.best_ms;
}

std::vector<LinearBenchRow> run_linear_bench(const LinearBenchOptions& options) {
  if (options.rounds < 1 || options.rounds > 1000) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("bench: rounds must be in 1..1000 (got {})", options.rounds));
  }
  const auto shapes = read_shapes(options.shapes);
  throw_if_error(shapes.status());
  const c10::InferenceMode guard;
  const ThreadSetting setting;
  std::vector<LinearBenchRow> rows;
  for (const int threads : options.threads) {
    at::set_num_threads(threads);
    for (const DType dtype : options.dtypes) {
      for (const LinearShape& shape : shapes.value()) {
        if (shape.m * shape.n * shape.k == 0) continue;
        rows.push_back(measure(shape, dtype, options));
        fmt::print("{}", line_of(rows.back()));
        std::fflush(stdout);
      }
    }
  }
  return rows;
}

}  // namespace rtlynx::bench
