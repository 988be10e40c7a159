#include "calibration/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "calibration/low_rank.h"
#include "calibration/state_folder.h"
#include "calibration/units.h"
#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

using Clock = std::chrono::steady_clock;
using Stage = CalibrationProgress::Stage;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "calibrate: " + what);
}

void check(std::span<Linear* const> linears, const CalibrationOptions& options) {
  if (linears.empty()) refuse("the model has no linears to calibrate");
  if (options.prompts.empty()) refuse("no prompts, expected at least one");
  if (options.batch_size < 1) refuse(fmt::format("batch size {}, expected 1 or more", options.batch_size));
  if (options.num_inference_steps < 1) refuse(fmt::format("{} steps, expected 1 or more", options.num_inference_steps));
  if (options.token_stride < 1) refuse(fmt::format("token stride {}, expected 1 or more", options.token_stride));
  if (!(options.ridge >= 0 && options.ridge <= 1)) refuse(fmt::format("ridge {}, expected 0 to 1", options.ridge));
  if (options.output.empty()) refuse("no output file");
  const auto output = std::filesystem::symlink_status(options.output);
  if (std::filesystem::exists(output) && !std::filesystem::is_regular_file(output)) {
    throw Error(ErrorCode::kNotAFile, fmt::format("{}: exists and is no regular file", options.output.string()));
  }
  for (const Linear* linear : linears) {
    if (linear->mode() != LinearMode::kDense) refuse(linear->name() + " is not in dense mode");
    if (options.rank < 1 || options.rank > std::min(linear->k(), linear->n())) {
      refuse(fmt::format("rank {}, expected 1 to {} for {} [{}, {}]", options.rank, std::min(linear->k(), linear->n()),
                         linear->name(), linear->n(), linear->k()));
    }
  }
}

/// What makes two runs the same run.
nlohmann::json identity_of(std::span<Linear* const> linears, const CalibrationOptions& options) {
  nlohmann::json names = nlohmann::json::array();
  for (const Linear* linear : linears)
    names.push_back(fmt::format("{} {}x{}", linear->name(), linear->n(), linear->k()));
  return {{"format", 1},
          {"model_class", options.model_class},
          {"fingerprint", options.fingerprint},
          {"linears", names},
          {"prompts", options.prompts},
          {"seed", options.seed},
          {"batch_size", options.batch_size},
          {"num_inference_steps", options.num_inference_steps},
          {"rank", options.rank},
          {"ridge", options.ridge},
          {"token_stride", options.token_stride},
          {"memory_limit", options.memory_limit},
          {"settings", options.settings}};
}

/// The groups whose sums fit into the limit together, in the order of their calls.
std::vector<InputGroups> plan_passes(std::span<Linear* const> linears, const InputGroups& groups, int64_t limit) {
  std::vector<InputGroups> passes;
  int64_t used = 0;
  for (const auto& group : groups) {
    const Linear& leader = *linears[group.front()];
    const int64_t bytes = 2 * leader.k() * leader.k() * int64_t{sizeof(double)};
    if (bytes > limit) {
      throw Error(ErrorCode::kOutOfMemory,
                  fmt::format("calibrate: the sums over the inputs of {} take {} bytes, the limit "
                              "is {}",
                              leader.name(), bytes, limit));
    }
    if (passes.empty() || used + bytes > limit) {
      passes.emplace_back();
      used = 0;
    }
    passes.back().push_back(group);
    used += bytes;
  }
  return passes;
}

class Calibration {
 public:
  Calibration(std::span<Linear* const> linears, const RunPrompts& run, const CalibrationOptions& options,
              const CalibrationCallbacks& callbacks)
      : linears_(linears),
        run_(run),
        options_(options),
        callbacks_(callbacks),
        state_(StateFolder::open(options.output.string() + ".calibration", identity_of(linears, options))) {}

  io::Adapter finish() {
    find_passes();
    for (std::size_t p = 0; p < passes_.size(); ++p) {
      if (all_solved(passes_[p])) {
        for (const auto& group : passes_[p]) solved_ += static_cast<int64_t>(group.size());
        state_.drop(sums_unit(p));  // where the run was killed just before this
        continue;
      }
      Sums sums = empty_sums(linears_, passes_[p]);
      gather(p, sums);
      solve(passes_[p], sums);
      state_.drop(sums_unit(p));
    }
    return write();
  }

 private:
  static std::string sums_unit(std::size_t pass) { return fmt::format("sums-{:03}", pass); }
  static std::string solved_unit(std::size_t linear) { return fmt::format("linear-{:04}", linear); }
  int64_t chunks() const {
    return (static_cast<int64_t>(options_.prompts.size()) + options_.batch_size - 1) / options_.batch_size;
  }
  bool all_solved(const InputGroups& pass) const {
    return std::all_of(pass.begin(), pass.end(), [&](const auto& group) {
      return std::all_of(group.begin(), group.end(), [&](std::size_t i) { return state_.has(solved_unit(i)); });
    });
  }
  void log(const std::string& line) const {
    if (callbacks_.log) callbacks_.log(line);
  }
  void report(const CalibrationProgress& progress) const {
    if (callbacks_.progress && !callbacks_.progress(progress)) cancel();
  }
  [[noreturn]] void cancel() const {
    throw Error(ErrorCode::kCancelled, fmt::format("calibrate: stopped; the same command continues from {}.calibration",
                                                   options_.output.string()));
  }

  void find_passes();
  void run_chunk(int64_t first_prompt, int64_t count, int64_t steps, const StepCallback& on_step) const;
  void gather(std::size_t pass, Sums& sums);
  void solve(const InputGroups& pass, const Sums& sums);
  io::AdapterLinear solve_linear(const Linear& linear, const InputSums& input, double error_energy) const;
  io::Adapter write();

  std::span<Linear* const> linears_;
  const RunPrompts& run_;
  const CalibrationOptions& options_;
  const CalibrationCallbacks& callbacks_;
  StateFolder state_;
  std::vector<InputGroups> passes_;
  int64_t solved_ = 0;
  Clock::time_point started_ = Clock::now();
};

void Calibration::find_passes() {
  const InputGroups groups = find_input_groups(linears_, [&] { run_chunk(0, 1, 1, {}); });
  passes_ = plan_passes(linears_, groups, options_.memory_limit);
  if (passes_.size() > 1) {
    log(fmt::format("the sums do not fit into {} bytes at once: the prompts run {} times", options_.memory_limit,
                    passes_.size()));
  }
}

void Calibration::run_chunk(int64_t first_prompt, int64_t count, int64_t steps, const StepCallback& on_step) const {
  const auto begin = options_.prompts.begin() + first_prompt;
  std::vector<uint64_t> seeds;
  for (int64_t i = 0; i < count; ++i) seeds.push_back(options_.seed + static_cast<uint64_t>(first_prompt + i));
  run_({begin, begin + count}, seeds, steps, on_step);
}

void Calibration::gather(std::size_t pass, Sums& sums) {
  int64_t done = 0;
  if (const auto saved = state_.load(sums_unit(pass))) {
    done = sums_from_file(*saved, state_.path_of(sums_unit(pass)).string(), sums);
    log(fmt::format("resumed: {} of {} chunks of prompts in pass {} of {}", done, chunks(), pass + 1, passes_.size()));
  }
  const auto passes = static_cast<int64_t>(passes_.size());
  const int64_t earlier = static_cast<int64_t>(pass) * chunks(), steps = options_.num_inference_steps;
  CalibrationProgress progress = {Stage::kGather, 0, passes * chunks() * steps, (earlier + done) * steps, 0, ""};
  Collector collector(linears_, passes_[pass], options_.token_stride, sums);
  const Clock::time_point begun = Clock::now();
  Clock::time_point saved_at = begun;
  for (; done < chunks(); ++done) {
    const int64_t first = done * options_.batch_size;
    const int64_t count = std::min(options_.batch_size, static_cast<int64_t>(options_.prompts.size()) - first);
    progress.detail = fmt::format("prompts {}-{}", first + 1, first + count);
    collector.begin_chunk({done, first, std::span(options_.prompts).subspan(first, count)});
    bool go_on = true;
    run_chunk(first, count, steps, [&](int64_t step, int64_t) {
      progress.done = (earlier + done) * steps + step;
      progress.seconds = seconds_since(begun);
      return go_on = !callbacks_.progress || callbacks_.progress(progress);
    });
    if (!go_on) cancel();
    if (done + 1 == chunks() || seconds_since(saved_at) >= options_.save_interval_seconds) {
      state_.save(sums_unit(pass), sums_to_file(sums, done + 1));
      saved_at = Clock::now();
    }
  }
}

void Calibration::solve(const InputGroups& pass, const Sums& sums) {
  const auto total = static_cast<int64_t>(linears_.size());
  int64_t resumed = solved_;
  const Clock::time_point begun = Clock::now();
  std::size_t error = 0;
  for (std::size_t g = 0; g < pass.size(); ++g) {
    for (const std::size_t i : pass[g]) {
      const double error_energy = sums.error_energy[error++];
      ++solved_;
      if (state_.has(solved_unit(i))) {
        ++resumed;
        continue;
      }
      const io::AdapterLinear solved = solve_linear(*linears_[i], sums.inputs[g], error_energy);
      state_.save(solved_unit(i), solved_to_file(solved, options_.rank));
      report({Stage::kSolve, solved_, total, resumed, seconds_since(begun), linears_[i]->name()});
    }
  }
}

io::AdapterLinear Calibration::solve_linear(const Linear& linear, const InputSums& input, double error_energy) const {
  const at::Tensor weight = linear.weight().to(at::kDouble);
  const at::Tensor cross = at::matmul(input.cross, weight.t());
  const LowRankFit fit = fit_low_rank(input.gram, cross, options_.rank, options_.ridge, linear.name(), callbacks_.log);
  io::AdapterLinear solved;
  solved.name = linear.name();
  solved.k = linear.k();
  solved.n = linear.n();
  solved.energy_kept = input.kept / input.energy;
  const double output_energy = at::sum(at::matmul(weight, input.gram) * weight).item<double>();
  const at::Tensor lora_a = fit.lora_a.to(at::kBFloat16), lora_b = fit.lora_b.to(at::kBFloat16);
  const double remaining = remaining_error(input.gram, cross, error_energy, lora_a, lora_b);
  solved.error_before = output_energy > 0 ? error_energy / output_energy : 0;
  solved.error_after = output_energy > 0 ? remaining / output_energy : 0;
  solved.sparse = remaining <= error_energy;
  solved.reason = solved.sparse ? fmt::format("ridge {:.0e}, {} tokens", fit.ridge, input.tokens)
                                : fmt::format("the branch would raise the error from {:.3g} to {:.3g}",
                                              solved.error_before, solved.error_after);
  if (solved.sparse) {
    solved.lora_a = bf16_bytes(lora_a);
    solved.lora_b = bf16_bytes(lora_b);
  } else {
    log(fmt::format("{} stays dense: {}", solved.name, solved.reason));
  }
  return solved;
}

io::Adapter Calibration::write() {
  io::Adapter adapter;
  adapter.model_class = options_.model_class;
  adapter.fingerprint = options_.fingerprint;
  adapter.rank = options_.rank;
  adapter.calibration = options_.settings;
  adapter.calibration.update({{"prompts", options_.prompts.size()},
                              {"seed", options_.seed},
                              {"batch_size", options_.batch_size},
                              {"num_inference_steps", options_.num_inference_steps},
                              {"ridge", options_.ridge},
                              {"token_stride", options_.token_stride}});
  for (std::size_t i = 0; i < linears_.size(); ++i) {
    const std::string path = state_.path_of(solved_unit(i)).string();
    adapter.linears.push_back(solved_from_file(*state_.load(solved_unit(i)), path, linears_[i]->name()));
  }
  // Through the state folder, where a kill in mid-write leaves nothing that the next run does not clean up.
  io::write_adapter(state_.path_of("adapter"), adapter);
  state_.move_out("adapter", options_.output);
  if (!options_.keep_state) state_.remove();
  return adapter;
}

}  // namespace

io::Adapter calibrate(std::span<Linear* const> linears, const RunPrompts& run, const CalibrationOptions& options,
                      const CalibrationCallbacks& callbacks) {
  const at::InferenceMode no_autograd;
  check(linears, options);
  return Calibration(linears, run, options, callbacks).finish();
}

}  // namespace rtlynx::calibration
