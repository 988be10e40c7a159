#include "calibration/skip_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

constexpr int kPointsBeyond = 8;  // of the curve, between the budget and an all-dense model

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "skip: " + what);
}

class Search {
 public:
  Search(const std::vector<SkipCandidate>& linears, const SkipSearchOptions& options,
         const std::function<double(const SparseSet&)>& damage, const SkipSearchProgress& progress)
      : linears_(linears), options_(options), damage_(damage), progress_(progress) {
    for (const SkipCandidate& linear : linears_) {
      choice_.sparse.push_back(linear.can_sparse);
      total_flops_ += linear.flops;
      largest_saving_ = std::max(largest_saving_, linear.saved);
    }
    check_room();
  }

  SkipChoice run() {
    measure_alone();
    choice_.damage_all = choice_.damage = measure(choice_.sparse);
    note("greedy", choice_.sparse, choice_.damage);
    while (choose_some()) {
    }
    if (options_.whole_curve) measure_curve();
    if (progress_) progress_(done_, done_);
    return std::move(choice_);
  }

 private:
  void check_room() const;
  double share(int64_t dense) const {
    return static_cast<double>(total_flops_ - dense) / static_cast<double>(total_flops_);
  }
  int64_t dense_flops(const SparseSet& sparse) const {
    int64_t flops = 0;
    for (std::size_t i = 0; i < sparse.size(); ++i) flops += sparse[i] ? 0 : linears_[i].flops;
    return flops;
  }
  bool fits(const SparseSet& sparse, std::size_t linear, double least_share) const {
    return share(dense_flops(sparse) + linears_[linear].flops) >= least_share;
  }
  /// `value` for each unit saved. What saves nothing is cheapest to leave dense, though not for free: among several,
  /// the value still decides.
  double rate(double value, std::size_t linear) const {
    return value / std::max(linears_[linear].saved, largest_saving_ * 1e-6);
  }
  double predicted(const SparseSet& sparse) const {
    double sum = 0;
    for (std::size_t i = 0; i < sparse.size(); ++i) sum += sparse[i] ? choice_.alone[i] : 0;
    return sum;
  }

  double measure(const SparseSet& sparse);
  void note(const char* name, const SparseSet& sparse, double damage);
  void measure_alone();
  std::vector<std::size_t> ranked(const SparseSet& sparse, const std::function<double(std::size_t)>& value) const;
  std::vector<std::size_t> shortlist(const SparseSet& untried) const;
  bool choose_some();
  SparseSet filled(SparseSet sparse, double least_share, const std::function<double(std::size_t)>& value) const;
  void measure_curve();
  int64_t estimate_left() const;

  const std::vector<SkipCandidate>& linears_;
  const SkipSearchOptions& options_;
  const std::function<double(const SparseSet&)>& damage_;
  const SkipSearchProgress& progress_;
  SkipChoice choice_;
  int64_t total_flops_ = 0;
  double largest_saving_ = 0;
  int64_t done_ = 0;
};

void Search::check_room() const {
  if (total_flops_ <= 0) refuse("the linears have no FLOPs");
  const double most = share(dense_flops(choice_.sparse));
  if (most < options_.sparse_flops) {
    refuse(
        fmt::format("the adapter lets {:.4f} of the FLOPs be sparse, {} are asked for", most, options_.sparse_flops));
  }
}

double Search::measure(const SparseSet& sparse) {
  if (progress_) progress_(done_, done_ + estimate_left());
  ++done_;
  return damage_(sparse);
}

/// Of measurements, this one included: what the damages alone foretell.
int64_t Search::estimate_left() const {
  int64_t left = static_cast<int64_t>(linears_.size()) - static_cast<int64_t>(choice_.alone.size());
  int64_t more = static_cast<int64_t>(linears_.size()) / 6;
  if (left == 0) {
    const SparseSet full =
        filled(choice_.sparse, options_.sparse_flops, [&](std::size_t i) { return choice_.alone[i]; });
    more =
        std::count(full.begin(), full.end(), false) - std::count(choice_.sparse.begin(), choice_.sparse.end(), false);
  }
  left += 1 + (more + options_.chosen_a_round - 1) / options_.chosen_a_round * (options_.candidates + 1);
  return left + (options_.whole_curve ? kPointsBeyond + 2 : 0);
}

void Search::note(const char* name, const SparseSet& sparse, double damage) {
  int64_t dense = 0;
  for (std::size_t i = 0; i < sparse.size(); ++i) dense += linears_[i].can_sparse && !sparse[i] ? 1 : 0;
  choice_.curve.push_back({name, dense, share(dense_flops(sparse)), predicted(sparse), damage});
}

void Search::measure_alone() {
  SparseSet one(linears_.size(), false);
  for (std::size_t i = 0; i < linears_.size(); ++i) {
    one[i] = linears_[i].can_sparse;
    const double damage = one[i] ? measure(one) : 0;
    choice_.alone.push_back(damage);
    one[i] = false;
  }
}

/// The sparse linears, the largest value for what they save first.
std::vector<std::size_t> Search::ranked(const SparseSet& sparse,
                                        const std::function<double(std::size_t)>& value) const {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < sparse.size(); ++i) {
    if (sparse[i]) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return rate(value(a), a) > rate(value(b), b); });
  return order;
}

std::vector<std::size_t> Search::shortlist(const SparseSet& untried) const {
  std::vector<std::size_t> list;
  for (const std::size_t i : ranked(untried, [&](std::size_t j) { return choice_.alone[j]; })) {
    if (static_cast<int64_t>(list.size()) == options_.candidates) break;
    if (fits(choice_.sparse, i, options_.sparse_flops)) list.push_back(i);
  }
  return list;
}

/// One round; false where it chose nothing.
bool Search::choose_some() {
  std::vector<double> gains(linears_.size(), 0);
  SparseSet untried = choice_.sparse, better(linears_.size(), false);
  // Where errors cancel, none of the worst may help: then the next worst are asked.
  while (std::count(better.begin(), better.end(), true) == 0) {
    const std::vector<std::size_t> list = shortlist(untried);
    if (list.empty()) return false;
    for (const std::size_t i : list) {
      SparseSet without = choice_.sparse;
      without[i] = false;
      gains[i] = choice_.damage - measure(without);
      better[i] = gains[i] > 0;
      untried[i] = false;
    }
  }
  int64_t chosen = 0;
  for (const std::size_t i : ranked(better, [&](std::size_t j) { return gains[j]; })) {
    if (chosen == options_.chosen_a_round) break;
    if (!fits(choice_.sparse, i, options_.sparse_flops)) continue;
    choice_.sparse[i] = false;
    choice_.order.push_back(i);
    choice_.gains.push_back(gains[i]);
    ++chosen;
  }
  choice_.damage = measure(choice_.sparse);
  note("greedy", choice_.sparse, choice_.damage);
  return true;
}

/// `sparse` less the linears of the largest value for what they save, as far as the share allows.
SparseSet Search::filled(SparseSet sparse, double least_share, const std::function<double(std::size_t)>& value) const {
  for (const std::size_t i : ranked(sparse, value)) {
    if (fits(sparse, i, least_share)) sparse[i] = false;
  }
  return sparse;
}

void Search::measure_curve() {
  const auto alone = [&](std::size_t i) { return choice_.alone[i]; };
  const auto local = [&](std::size_t i) { return linears_[i].local_error; };
  SparseSet all;
  for (const SkipCandidate& linear : linears_) all.push_back(linear.can_sparse);
  for (const auto& [name, full] : {std::pair("damage-alone", filled(all, options_.sparse_flops, alone)),
                                   std::pair("local-error", filled(all, options_.sparse_flops, local))}) {
    note(name, full, measure(full));
  }
  SparseSet beyond = choice_.sparse;
  for (int point = 1; point <= kPointsBeyond; ++point) {
    const double least = options_.sparse_flops * (kPointsBeyond - point) / kPointsBeyond;
    const SparseSet next = filled(beyond, least, alone);
    if (next == beyond) continue;
    beyond = next;
    note("beyond", beyond, measure(beyond));
  }
}

}  // namespace

void check(const SkipSearchOptions& options) {
  if (!(options.sparse_flops > 0 && options.sparse_flops <= 1)) {
    refuse(fmt::format("{} of the FLOPs sparse, expected more than 0 and at most 1", options.sparse_flops));
  }
  if (options.candidates < 1) refuse(fmt::format("{} candidates, expected 1 or more", options.candidates));
  if (options.chosen_a_round < 1) refuse(fmt::format("{} chosen a round, expected 1 or more", options.chosen_a_round));
}

SkipChoice search_skips(const std::vector<SkipCandidate>& linears, const SkipSearchOptions& options,
                        const std::function<double(const SparseSet&)>& damage, const SkipSearchProgress& progress) {
  check(options);
  return Search(linears, options, damage, progress).run();
}

}  // namespace rtlynx::calibration
