#include "calibration/skip.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "calibration/apply_adapter.h"
#include "calibration/state_folder.h"
#include "core/hash64.h"
#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

/// The factors of an adapter, whatever it decides.
std::string factors_hash(const io::Adapter& adapter) {
  Hash64 hash;
  for (const io::AdapterLinear& linear : adapter.linears) {
    hash.update(linear.name);
    hash.update(static_cast<uint64_t>(linear.lora_a.size()));
    hash.update(linear.lora_a);
    hash.update(linear.lora_b);
  }
  return hex16(hash.digest());
}

/// What makes two runs measure the same. The budget is not in it: every measurement stands for itself.
nlohmann::json identity_of(std::span<Linear* const> linears, const io::Adapter& adapter, const SkipOptions& options) {
  nlohmann::json names = nlohmann::json::array();
  for (const Linear* linear : linears) names.push_back(linear->name());
  return {{"kind", "skip"},
          {"format", 1},
          {"fingerprint", adapter.fingerprint},
          {"factors", factors_hash(adapter)},
          {"linears", names},
          {"prompts", options.damage.prompts},
          {"seed", options.damage.seed},
          {"batch_size", options.damage.batch_size},
          {"num_inference_steps", options.damage.num_inference_steps},
          {"num_timesteps", options.damage.num_timesteps},
          {"settings", options.settings}};
}

/// Leaves the linears dense, whatever happens.
class ScopedBranches {
 public:
  ScopedBranches(std::span<Linear* const> linears, const io::Adapter& adapter, const std::string& origin)
      : linears_(linears) {
    apply_adapter(linears, adapter, origin, adapter.model_class, "", LinearMode::kSaNcLora, PlanPolicy::kSparse);
    for (Linear* linear : linears_) linear->set_mode(LinearMode::kDense, PlanPolicy::kSparse);  // keeps the branch
  }
  ~ScopedBranches() { set_modes(linears_, LinearMode::kDense, PlanPolicy::kAuto); }
  ScopedBranches(const ScopedBranches&) = delete;
  ScopedBranches& operator=(const ScopedBranches&) = delete;

 private:
  std::span<Linear* const> linears_;
};

std::string ordinal(std::size_t number) {
  const std::size_t tens = number % 100;
  const char* ending = "th";
  if (tens < 11 || tens > 13) {
    if (number % 10 == 1) ending = "st";
    if (number % 10 == 2) ending = "nd";
    if (number % 10 == 3) ending = "rd";
  }
  return fmt::format("{}{}", number, ending);
}

std::vector<SkipCandidate> candidates_of(std::span<Linear* const> linears, const std::vector<int64_t>& flops,
                                         const std::map<std::string_view, const io::AdapterLinear*>& adapted,
                                         const SkipOptions& options) {
  const auto pictures = static_cast<int64_t>(options.damage.prompts.size());
  std::vector<SkipCandidate> candidates;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    const int64_t n = linears[i]->n(), k = linears[i]->k();
    const auto found = adapted.find(linears[i]->name());
    SkipCandidate candidate;
    candidate.flops = flops[i];
    candidate.saved =
        options.saved_ms ? options.saved_ms(flops[i] / (n * k * pictures), n, k) : static_cast<double>(flops[i]);
    candidate.can_sparse = found != adapted.end() && found->second->has_factors();
    if (candidate.can_sparse) candidate.local_error = found->second->error_after;
    candidates.push_back(candidate);
  }
  return candidates;
}

/// Writes the choice into the adapter's decisions.
void decide(io::Adapter& adapter, std::span<Linear* const> linears, const SkipChoice& choice,
            const std::vector<double>& shares) {
  std::map<std::string_view, io::AdapterLinear*> by_name;
  for (io::AdapterLinear& linear : adapter.linears) by_name.emplace(linear.name, &linear);
  for (std::size_t i = 0; i < linears.size(); ++i) {
    const auto found = by_name.find(linears[i]->name());
    if (found == by_name.end() || !found->second->has_factors()) continue;
    found->second->sparse = true;
    found->second->reason = fmt::format("damage {:.2e} alone, {:.2f} % of the FLOPs", choice.alone[i], 100 * shares[i]);
  }
  for (std::size_t place = 0; place < choice.order.size(); ++place) {
    io::AdapterLinear& linear = *by_name.at(linears[choice.order[place]]->name());
    linear.sparse = false;
    linear.reason += fmt::format("; dense, it lowers the damage of all by {:.2e}: {} of {} left dense",
                                 choice.gains[place], ordinal(place + 1), choice.order.size());
  }
}

void describe(io::Adapter& adapter, const SkipOptions& options, const SkipChoice& choice) {
  adapter.calibration.update({{"sparse_flops", options.search.sparse_flops},
                              {"skip_by", options.saved_ms ? "milliseconds" : "flops"},
                              {"skip_prompts", options.damage.prompts.size()},
                              {"skip_seed", options.damage.seed},
                              {"skip_num_inference_steps", options.damage.num_inference_steps},
                              {"skip_num_timesteps", options.damage.num_timesteps},
                              {"skip_candidates", options.search.candidates},
                              {"skip_chosen_a_round", options.search.chosen_a_round},
                              {"damage_all_sparse", choice.damage_all},
                              {"damage", choice.damage}});
}

void check_all(const SkipOptions& options) {
  check(options.search);
  if (options.output.empty()) throw Error(ErrorCode::kInvalidArgument, "skip: no output file");
  const auto output = std::filesystem::symlink_status(options.output);
  if (std::filesystem::exists(output) && !std::filesystem::is_regular_file(output)) {
    throw Error(ErrorCode::kNotAFile, fmt::format("{}: exists and is no regular file", options.output.string()));
  }
}

}  // namespace

SkipResult choose_skips(std::span<Linear* const> linears, const VelocityModel& model, const io::Adapter& adapter,
                        const std::string& origin, const SkipOptions& options,
                        const std::function<bool(const SkipProgress&)>& progress) {
  check_all(options);
  const ScopedBranches branches(linears, adapter, origin);
  const std::string folder = options.output.string() + ".skip";
  const StateFolder state = StateFolder::open(folder, identity_of(linears, adapter, options));
  const auto report = [&](SkipProgress::Stage stage, int64_t done, int64_t total) {
    return !progress || progress({stage, done, total});
  };
  DamageMeter meter(linears, model, options.damage, state);
  meter.prepare([&](int64_t done, int64_t total) { return report(SkipProgress::Stage::kDense, done, total); });

  std::map<std::string_view, const io::AdapterLinear*> adapted;
  for (const io::AdapterLinear& linear : adapter.linears) adapted.emplace(linear.name, &linear);
  SkipResult result;
  const auto candidates = candidates_of(linears, meter.flops(), adapted, options);
  result.choice = search_skips(
      candidates, options.search, [&](const SparseSet& sparse) { return meter.measure(sparse); },
      [&](int64_t done, int64_t total) {
        if (report(SkipProgress::Stage::kMeasure, done, total)) return;
        throw Error(ErrorCode::kCancelled, "skip: stopped; the same command continues from " + folder);
      });
  int64_t total = 0;
  for (const int64_t flops : meter.flops()) total += flops;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    result.names.push_back(linears[i]->name());
    result.shares.push_back(static_cast<double>(candidates[i].flops) / static_cast<double>(total));
    result.local_errors.push_back(candidates[i].local_error);
  }

  result.adapter = adapter;
  decide(result.adapter, linears, result.choice, result.shares);
  describe(result.adapter, options, result.choice);
  io::write_adapter(state.path_of("adapter"), result.adapter);
  state.move_out("adapter", options.output);
  if (!options.keep_state) state.remove();
  return result;
}

}  // namespace rtlynx::calibration
