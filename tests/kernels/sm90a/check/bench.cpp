// Speed beside cuBLASLt in one process. All contestants of a shape take turns, in an order that rotates from batch to
// batch, so that clocks, power and cache hit them alike; figures are medians over the batches after two that warm up.
// N(0, 1) data: zeros would draw less power and clock higher.
#include "bench.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <memory>

#include "bench_fp8.h"
#include "bench_phases.h"
#include "dense_product.h"
#include "device_compressed.h"
#include "device_memory.h"
#include "gpu_monitor.h"
#include "kernels/shapes.h"
#include "kernels/sm90a/norm_modulate_config.h"
#include "kernels/sm90a/spmm_config.h"
#include "reference.h"
#include "rtlynx/sm90a.h"
#include "stopwatch.h"

namespace rtlynx::check {
namespace {

constexpr int kBatches = 11, kWarmUpBatches = 2;
constexpr double kBatchSeconds = 0.004;
constexpr int64_t kRank = 64;

struct Contestant {
  std::string name;
  std::function<void()> call;
  int repeats = 1;
  std::vector<double> seconds;
  GpuMonitor::Sample monitor;

  double median() const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

std::unique_ptr<DeviceMatrix> gaussian(int64_t rows, int64_t cols, uint32_t seed) {
  auto matrix = std::make_unique<DeviceMatrix>(rows, cols);
  fill_gaussian(matrix->data(), rows * cols, seed);
  return matrix;
}

/// Everything one shape needs, and the contestants on it.
class ShapeBench {
 public:
  ShapeBench(const LinearShape& shape, int multiprocessors, const std::vector<std::string>& only)
      : shape_(shape),
        only_(only),
        multiprocessors_(multiprocessors),
        x_(gaussian(shape.m, shape.k, 1)),
        w_(gaussian(shape.n, shape.k, 2)),
        lora_a_(gaussian(kRank, shape.k, 3)),
        lora_up_(gaussian(shape.n, kRank, 4)),
        bias_(gaussian(1, shape.n, 5)),
        lora_down_(gaussian(shape.m, kRank, 6)),
        modulation_(gaussian(2, shape.k, 7)),
        gate_(gaussian(1, shape.n, 8)),
        d_(shape.m, shape.n),
        x_copy_(shape.m, shape.k),
        blocks_(static_cast<std::size_t>(sm90a::compressed_bytes(shape.m, shape.k).value())),
        scale_(static_cast<std::size_t>(shape.m) * 4),
        a_{blocks_.data(), static_cast<float*>(scale_.data()), shape.m, shape.k},
        next_(shape.n % 64 == 0 ? std::make_unique<DeviceCompressed>(shape.m, shape.n) : nullptr),
        dense_(shape.m, shape.n, shape.k, x_->data(), w_->data(), d_.data()),
        down_(shape.m, kRank, shape.k, x_->data(), lora_a_->data(), lora_down_->data()),
        copy_from_(copy_bytes()),
        copy_to_(copy_bytes()) {
    prune();
    add_contestants();
  }

  void measure(const GpuMonitor& monitor) {
    for (Contestant& contestant : contestants_) {
      contestant.call();
      const Stopwatch watch(2, contestant.call);
      contestant.repeats = std::clamp(static_cast<int>(kBatchSeconds / watch.seconds()), 2, 100);
    }
    const auto count = contestants_.size();
    for (std::size_t batch = 0; batch < kBatches; ++batch) {
      for (std::size_t i = 0; i < count; ++i) {
        Contestant& contestant = contestants_[(i + 3 * batch) % count];
        const Stopwatch watch(contestant.repeats, contestant.call);
        if (batch + 1 == kBatches) contestant.monitor = monitor.sample();  // while the batch runs
        const double seconds = watch.seconds();
        if (batch >= kWarmUpBatches) contestant.seconds.push_back(seconds);
      }
    }
  }

  /// Where the kernels of spmm spend their cycles, in builds that count them.
  void print_phases() const {
    for (const Contestant& contestant : contestants_) {
      if (contestant.name.rfind("spmm", 0) == 0) check::print_phases(contestant.name, shape_.k, contestant.call);
    }
  }

  void print() const {
    std::printf("%5lld x %5lld x %5lld  cuBLASLt %7.1f us %4.0f TF (%d algorithms)\n", static_cast<long long>(shape_.m),
                static_cast<long long>(shape_.n), static_cast<long long>(shape_.k), dense_seconds() * 1e6,
                tera(dense_seconds()), dense_.candidates());
    for (const Contestant& c : contestants_) {
      std::printf("   %-28s %8.1f us  %5.0f TF  %.3fx  %4u MHz %4.0f W\n", c.name.c_str(), c.median() * 1e6,
                  tera(c.median()), dense_seconds() / c.median(), c.monitor.sm_mhz, c.monitor.watts);
    }
    for (int tile = 0; tile < sm90a::kSpmmTileCount; ++tile) {
      if (!has(tile_name(tile))) continue;
      std::printf("   %-28s %5.0f cycles a step of the busiest CTA, epilogues included\n", tile_name(tile).c_str(),
                  cycles_per_step(tile));
    }
    for (const char* name :
         {"prune_compress", "prune_compress, T", "norm+modulate -> 2:4", "norm+modulate -> 2:4, T"}) {
      if (!has(name) || !has("copy")) continue;
      std::printf("   %s moves %.1f MB at %.2f TB/s, %.0f %% of what a copy of as many bytes reaches\n", name,
                  moved_bytes() * 1e-6, moved_bytes() / seconds_of(name) * 1e-12,
                  100 * seconds_of("copy") / seconds_of(name));
    }
    if (fp8_ != nullptr && has("prune_compress fp8") && has("copy for fp8")) {
      std::printf("   prune_compress fp8 moves %.1f MB at %.2f TB/s, %.0f %% of what a copy of as many bytes reaches\n",
                  fp8_->moved_bytes() * 1e-6, fp8_->moved_bytes() / seconds_of("prune_compress fp8") * 1e-12,
                  100 * seconds_of("copy for fp8") / seconds_of("prune_compress fp8"));
    }
    std::fflush(stdout);
  }

  void write(std::ofstream& out, const std::string& gpu) const {
    for (const Contestant& c : contestants_) {
      const auto [low, high] = std::minmax_element(c.seconds.begin(), c.seconds.end());
      char line[512];
      std::snprintf(
          line, sizeof(line),
          "{\"gpu\": \"%s\", \"dtype\": \"bf16\", \"m\": %lld, \"n\": %lld, \"k\": %lld, \"contestant\": \"%s\", "
          "\"median_us\": %.3f, \"min_us\": %.3f, \"max_us\": %.3f, \"dense_tflops\": %.1f, "
          "\"over_cublaslt\": %.4f, \"sm_mhz\": %u, \"watts\": %.0f, \"clock_limits\": %llu}",
          gpu.c_str(), static_cast<long long>(shape_.m), static_cast<long long>(shape_.n),
          static_cast<long long>(shape_.k), c.name.c_str(), c.median() * 1e6, *low * 1e6, *high * 1e6, tera(c.median()),
          dense_seconds() / c.median(), c.monitor.sm_mhz, c.monitor.watts, c.monitor.limits);
      out << line << '\n';
    }
  }

  bool has(const std::string& name) const {
    return std::any_of(contestants_.begin(), contestants_.end(), [&](const Contestant& c) { return c.name == name; });
  }
  /// How many times faster than cuBLASLt each contestant is.
  std::map<std::string, double> ratios() const {
    std::map<std::string, double> all;
    for (const Contestant& c : contestants_) all[c.name] = dense_seconds() / c.median();
    return all;
  }

 private:
  double moved_bytes() const { return 3.125 * static_cast<double>(shape_.m) * static_cast<double>(shape_.k); }
  /// A copy reads and writes each of these.
  std::size_t copy_bytes() const { return static_cast<std::size_t>(moved_bytes() / 2); }

  void prune() { require(sm90a::prune_compress(x_->view(), a_, nullptr)); }
  void prune_with_t() {
    require(sm90a::prune_compress_lora(x_->view(), a_, {lora_a_->view(), lora_down_->mutable_view()}, nullptr));
  }
  void multiply(const sm90a::SpmmOptions& options) {
    require(sm90a::spmm(read_only(a_), w_->view(), d_.mutable_view(), options, nullptr));
  }

  void normalize(const MutableMatrixView& dense, const sm90a::LoraDown& lora = {}) {
    MatrixView scale = modulation_->view(), shift = scale;
    scale.rows = shift.rows = 1;
    shift.data = modulation_->data() + shape_.k;
    const sm90a::NormModulateOptions options{.scale = scale, .shift = shift, .dense = dense, .lora = lora};
    require(sm90a::norm_modulate_prune_compress(x_->view(), a_, options, nullptr));
  }

  void add(const std::string& name, std::function<void()> call) {
    const bool wanted = only_.empty() || std::any_of(only_.begin(), only_.end(), [&](const std::string& part) {
                          return name.find(part) != std::string::npos;
                        });
    if (!wanted) return;
    contestants_.push_back({name, std::move(call), 1, {}, {}});
  }

  /// What spmm makes of its sums.
  void add_outputs() {
    add("spmm, gelu", [this] { multiply({.activation = sm90a::Activation::kGeluTanh}); });
    add("spmm, gate + residual", [this] { multiply({.gate = gate_->view(), .residual = d_.view()}); });
    if (next_ == nullptr) return;
    for (const auto activation : {sm90a::Activation::kNone, sm90a::Activation::kGeluTanh}) {
      const bool gelu = activation == sm90a::Activation::kGeluTanh;
      add(gelu ? "spmm, gelu -> 2:4" : "spmm -> 2:4", [this, activation] {
        require(sm90a::spmm_compress(read_only(a_), w_->view(), next_->slice(0), {.activation = activation}, nullptr));
      });
    }
    add("finish_scale", [this] {
      require(sm90a::finish_scale(next_->view, static_cast<const float*>(next_->squares.data()), nullptr));
    });
  }

  void add_contestants() {
    add("cublaslt", [this] { dense_.run(); });
    add("spmm", [this] { multiply({}); });
    for (int tile = 0; tile < sm90a::kSpmmTileCount; ++tile) {
      add(tile_name(tile), [this, tile] { multiply({.tile = tile}); });
    }
    const sm90a::SpmmOptions everything{
        .bias = bias_->view(), .lora_down = lora_down_->view(), .lora_up = lora_up_->view()};
    add("spmm + rank 64 + bias", [this, everything] { multiply(everything); });
    add("prune_compress", [this] { prune(); });
    add("prune_compress + spmm", [this] {
      prune();
      multiply({});
    });
    add("linear, rank 64, bias", [this, everything] {
      prune();
      down_.run();
      multiply(everything);
    });
    add("prune_compress, T", [this] { prune_with_t(); });
    add("linear, rank 64, bias, T fused", [this, everything] {
      prune_with_t();
      multiply(everything);
    });
    add_outputs();
    if (shape_.k <= sm90a::kNormMaxK) {
      add("norm+modulate -> 2:4", [this] { normalize({}); });
      add("norm+modulate -> 2:4 + dense", [this] { normalize(x_copy_.mutable_view()); });
      // Wider rows leave no room for L_A.
      if (shape_.k <= 5632) {
        add("norm+modulate -> 2:4, T", [this] { normalize({}, {lora_a_->view(), lora_down_->mutable_view()}); });
      }
    }
    if (shape_.k % 128 == 0) {
      fp8_ = std::make_unique<Fp8Bench>(shape_, Fp8Bench::Operands{*x_, *w_, d_, down_, *gate_, everything});
      fp8_->add_to([this](const std::string& name, std::function<void()> call) { add(name, std::move(call)); });
    }
    add("copy", [this] {
      require(cudaMemcpyAsync(copy_to_.data(), copy_from_.data(), copy_bytes(), cudaMemcpyDeviceToDevice, nullptr),
              "copy");
    });
  }

  static std::string tile_name(int tile) {
    const sm90a::SpmmTile& shape = sm90a::kSpmmTiles[tile];
    return "spmm " + std::to_string(shape.rows()) + "x" + std::to_string(shape.columns);
  }

  /// What kSpmmTiles::cycles_per_step stands for, from the time and the sampled clock; a clock under changing load is
  /// only good to several per cent.
  double cycles_per_step(int tile) const {
    int clusters[sm90a::kSpmmTileCount];
    std::fill(std::begin(clusters), std::end(clusters), multiprocessors_ / sm90a::kClusterSize);
    const sm90a::SpmmPlan plan = sm90a::plan_spmm(shape_.m, shape_.n, shape_.k, 0, clusters, tile).value();
    const Contestant& contestant = find(tile_name(tile));
    const auto steps = static_cast<double>(plan.waves) * static_cast<double>(shape_.k / sm90a::kBlockK);
    return contestant.median() * contestant.monitor.sm_mhz * 1e6 / steps;
  }

  const Contestant& find(const std::string& name) const {
    const auto found = std::find_if(contestants_.begin(), contestants_.end(),
                                    [&](const Contestant& contestant) { return contestant.name == name; });
    if (found == contestants_.end()) throw std::runtime_error("no contestant " + name);
    return *found;
  }
  double seconds_of(const std::string& name) const { return find(name).median(); }
  /// 0 where it was not asked for.
  double dense_seconds() const { return has("cublaslt") ? seconds_of("cublaslt") : 0; }
  /// TFLOP/s of the dense product that a time stands for.
  double tera(double seconds) const {
    return 2e-12 * static_cast<double>(shape_.m) * static_cast<double>(shape_.n) * static_cast<double>(shape_.k) /
           seconds;
  }

  LinearShape shape_;
  std::vector<std::string> only_;
  int multiprocessors_;
  std::unique_ptr<DeviceMatrix> x_, w_, lora_a_, lora_up_, bias_, lora_down_, modulation_, gate_;
  DeviceMatrix d_, x_copy_;
  DeviceBytes blocks_, scale_;
  sm90a::MutableCompressedView a_;
  std::unique_ptr<DeviceCompressed> next_;  ///< D compressed
  DenseProduct dense_, down_;
  std::unique_ptr<Fp8Bench> fp8_;
  DeviceBytes copy_from_, copy_to_;
  std::vector<Contestant> contestants_;
};

}  // namespace

void bench(const std::string& shapes_path, const std::string& results_path, const std::vector<std::string>& only) {
  const Result<std::vector<LinearShape>> shapes = read_shapes(shapes_path);
  require(shapes.status());
  std::ofstream out(results_path, std::ios::app);
  if (!out) throw std::runtime_error(results_path + ": cannot be written");
  cudaDeviceProp properties{};
  require(cudaGetDeviceProperties(&properties, 0), "device properties");
  const GpuMonitor monitor;
  std::map<std::string, double> logarithms;
  for (const LinearShape& shape : shapes.value()) {
    ShapeBench bench(shape, properties.multiProcessorCount, only);
    bench.measure(monitor);
    bench.print();
    bench.print_phases();
    bench.write(out, properties.name);
    for (const auto& contestant : bench.ratios()) logarithms[contestant.first] += std::log(contestant.second);
  }
  std::printf("geometric means over %zu shapes, over cuBLASLt:\n", shapes.value().size());
  for (const auto& [name, logarithm] : logarithms) {
    std::printf("   %-28s %.3fx\n", name.c_str(), std::exp(logarithm / static_cast<double>(shapes.value().size())));
  }
  out.flush();
  if (!out) throw std::runtime_error(results_path + ": cannot be written");
}

}  // namespace rtlynx::check
