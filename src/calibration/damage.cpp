#include "calibration/damage.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/hash64.h"
#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "skip: " + what);
}

std::string bits_of(const SparseSet& sparse) {
  std::string bits;
  for (const bool is_sparse : sparse) bits += is_sparse ? '1' : '0';
  return bits;
}

at::Tensor take(const TensorFile& file, const std::string& name, const std::string& origin) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end()) {
    throw Error(ErrorCode::kOtherRun, fmt::format("{}: lacks {}; remove the folder to start again", origin, name));
  }
  return found->second;
}

/// Rows that the linears multiply while it lives.
class RowCounter {
 public:
  explicit RowCounter(std::span<Linear* const> linears) : linears_(linears), rows_(linears.size(), 0) {
    for (std::size_t i = 0; i < linears_.size(); ++i) {
      linears_[i]->set_observer([this, i](const Linear&, const at::Tensor& x) { rows_[i] += x.numel() / x.size(-1); });
    }
  }
  ~RowCounter() {
    for (Linear* linear : linears_) linear->set_observer({});
  }
  RowCounter(const RowCounter&) = delete;
  RowCounter& operator=(const RowCounter&) = delete;
  const std::vector<int64_t>& rows() const { return rows_; }

 private:
  std::span<Linear* const> linears_;
  std::vector<int64_t> rows_;
};

/// For each prompt: sum (v - dense)^2 / sum dense^2, [B] fp64 on the CPU.
at::Tensor relative_errors(const at::Tensor& velocity, const at::Tensor& dense) {
  const at::Tensor reference = dense.to(at::kDouble).flatten(1);
  const at::Tensor error = velocity.to(at::kDouble).flatten(1) - reference;
  return (error.square().sum(1) / reference.square().sum(1)).to(at::kCPU);
}

}  // namespace

std::vector<int64_t> spread_steps(int64_t steps, int64_t count) {
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < count; ++i) chosen.push_back((2 * i + 1) * steps / (2 * count));
  return chosen;
}

DamageMeter::DamageMeter(std::span<Linear* const> linears, const VelocityModel& model, const DamageOptions& options,
                         const StateFolder& state)
    : linears_(linears), model_(model), options_(options), state_(state) {
  if (linears.empty()) refuse("the model has no linears");
  if (options.prompts.empty()) refuse("no prompts, expected at least one");
  if (options.batch_size < 1) refuse(fmt::format("batch size {}, expected 1 or more", options.batch_size));
  if (options.num_timesteps < 1 || options.num_timesteps > options.num_inference_steps) {
    refuse(
        fmt::format("{} timesteps of {} steps, expected 1 to all", options.num_timesteps, options.num_inference_steps));
  }
  for (const Linear* linear : linears) {
    if (linear->mode() != LinearMode::kDense) refuse(linear->name() + " is not in dense mode");
  }
  steps_ = spread_steps(options.num_inference_steps, options.num_timesteps);
  const auto batch = static_cast<std::size_t>(options.batch_size);
  for (std::size_t first = 0; first < options.prompts.size(); first += batch) {
    const auto prompts = std::span(options.prompts).subspan(first, std::min(batch, options.prompts.size() - first));
    chunks_.push_back({{prompts.begin(), prompts.end()}, {}, {}});
  }
}

void DamageMeter::prepare(const std::function<bool(int64_t done, int64_t total)>& go_on) {
  const c10::InferenceMode guard;
  const int64_t total = static_cast<int64_t>(chunks_.size()) * options_.num_inference_steps;
  const at::Device device = linears_.front()->weight().device();
  std::vector<int64_t> rows(linears_.size(), 0);
  uint64_t seed = options_.seed;
  for (std::size_t c = 0; c < chunks_.size(); ++c) {
    const int64_t before = static_cast<int64_t>(c) * options_.num_inference_steps;
    std::vector<uint64_t> seeds;
    for (std::size_t i = 0; i < chunks_[c].prompts.size(); ++i) seeds.push_back(seed++);
    const std::string unit = fmt::format("dense-{:04}", c);
    auto file = state_.load(unit);
    if (!file) {
      file = run_dense(c, seeds, [&](int64_t step) { return !go_on || go_on(before + step, total); });
      state_.save(unit, *file);
    }
    const std::string origin = state_.path_of(unit).string();
    chunks_[c].latents = take(*file, "latents", origin).to(device);
    chunks_[c].velocity = take(*file, "velocity", origin).to(device);
    const at::Tensor counted = take(*file, "rows", origin);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] += counted[static_cast<int64_t>(i)].item<int64_t>();
  }
  flops_.clear();
  for (std::size_t i = 0; i < rows.size(); ++i) flops_.push_back(rows[i] * linears_[i]->k() * linears_[i]->n());
}

TensorFile DamageMeter::run_dense(std::size_t chunk, const std::vector<uint64_t>& seeds,
                                  const std::function<bool(int64_t step)>& go_on) const {
  std::vector<at::Tensor> latents, velocities;
  bool stopped = false;
  const RowCounter counter(linears_);
  model_.denoise(chunks_[chunk].prompts, seeds, options_.num_inference_steps,
                 [&](int64_t step, const at::Tensor& entering, const at::Tensor& velocity) {
                   if (std::find(steps_.begin(), steps_.end(), step) != steps_.end()) {
                     latents.push_back(entering.clone());
                     velocities.push_back(velocity.clone());
                   }
                   stopped = stopped || !go_on(step + 1);
                   return !stopped;
                 });
  if (stopped || latents.size() != steps_.size()) {
    throw Error(ErrorCode::kCancelled, "skip: stopped; the same command continues");
  }
  TensorFile file;
  file.tensors["latents"] = at::stack(latents);
  file.tensors["velocity"] = at::stack(velocities);
  at::Tensor rows = at::tensor(counter.rows(), at::kLong);
  // Every step multiplies the same number of rows.
  file.tensors["rows"] = at::floor_divide(rows, options_.num_inference_steps);
  return file;
}

void DamageMeter::set(const SparseSet& sparse) const {
  for (std::size_t i = 0; i < linears_.size(); ++i) {
    const LinearMode wanted = sparse[i] ? LinearMode::kSaNcLora : LinearMode::kDense;
    // A change drops what the linear has packed, so it is made only where there is one.
    if (linears_[i]->mode() != wanted) linears_[i]->set_mode(wanted, PlanPolicy::kSparse);
  }
}

double DamageMeter::measure(const SparseSet& sparse) {
  const c10::InferenceMode guard;
  const std::string bits = bits_of(sparse);
  Hash64 hash;
  hash.update(bits);
  const std::string unit = "damage-" + hex16(hash.digest());
  const std::string origin = state_.path_of(unit).string();
  std::optional<TensorFile> file = state_.load(unit);
  if (!file) {
    set(sparse);
    std::vector<at::Tensor> errors;
    for (const Chunk& chunk : chunks_) {
      for (std::size_t t = 0; t < steps_.size(); ++t) {
        const auto row = static_cast<int64_t>(t);
        const at::Tensor velocity =
            model_.predict(chunk.prompts, chunk.latents[row], steps_[t], options_.num_inference_steps);
        errors.push_back(relative_errors(velocity, chunk.velocity[row]));
      }
    }
    file = TensorFile{{{"damage", at::cat(errors)}}, {{"sparse", bits}}};
    if (std::isfinite(file->tensors["damage"].sum().item<double>())) state_.save(unit, *file);
  }
  if (file->metadata["sparse"] != bits) {
    throw Error(ErrorCode::kOtherRun, fmt::format("{}: is about another set of linears", origin));
  }
  const double damage = take(*file, "damage", origin).mean().item<double>();
  if (!std::isfinite(damage)) {
    const auto count = std::count(sparse.begin(), sparse.end(), true);
    const auto first = static_cast<std::size_t>(std::find(sparse.begin(), sparse.end(), true) - sparse.begin());
    throw Error(ErrorCode::kNonFinite,
                fmt::format("skip: the damage of {} is not finite",
                            count == 1 ? linears_[first]->name() : fmt::format("{} sparse linears", count)));
  }
  return damage;
}

}  // namespace rtlynx::calibration
