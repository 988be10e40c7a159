#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace rtlynx::calibration {

/// Which linears run sparse, in the model's order.
using SparseSet = std::vector<bool>;

/// One linear as the search sees it.
struct SkipCandidate {
  int64_t flops = 0;       ///< of its dense product, in any unit that all share
  double saved = 0;        ///< what running sparse saves: FLOPs, or measured time; anything <= 0 saves nothing
  bool can_sparse = true;  ///< false: it stays dense whatever is chosen
  double local_error = 0;  ///< of its own output, for comparison
};

struct SkipSearchOptions {
  double sparse_flops = 0.85;  ///< at least this share of the FLOPs stays sparse, > 0 and at most 1
  int64_t candidates = 8;      ///< linears that each round measures again
  int64_t chosen_a_round = 2;  ///< at most; the next round measures with these dense
  bool whole_curve = false;    ///< also measure what lies beyond the budget, and simpler choices, for the plot
};

/// Throws Error(kInvalidArgument) for options out of bounds.
void check(const SkipSearchOptions& options);

/// A set that was measured.
struct SkipPoint {
  std::string choice;  ///< "greedy"; "beyond" the budget; "damage-alone", "local-error": chosen without a second look
  int64_t num_dense = 0;    ///< linears that could be sparse and are dense
  double sparse_flops = 0;  ///< share of all FLOPs
  double predicted = 0;     ///< the sum of the damages that its sparse linears do alone
  double measured = 0;
};

struct SkipChoice {
  SparseSet sparse;
  std::vector<std::size_t> order;  ///< the linears left dense, in the order of the choice
  std::vector<double> gains;       ///< of those: by how much the damage fell, measured in their round
  std::vector<double> alone;       ///< of every linear: the damage where it alone is sparse; 0 where it cannot be
  double damage_all = 0;           ///< where all that can be are sparse
  double damage = 0;               ///< of `sparse`
  std::vector<SkipPoint> curve;
};

/// Told before each measurement and at the end; `total` is an estimate until the end.
using SkipSearchProgress = std::function<void(int64_t done, int64_t total)>;

/// Chooses the linears to leave dense. Every linear is measured alone. Then, in rounds, the `candidates` with the most
/// damage alone for what they save, among those that the budget still affords, are each left dense in turn beside
/// those already chosen; the ones that lower the damage most for what they save are chosen. Where none of them lowers
/// it, the next `candidates` are asked. It ends where nothing fits the budget or nothing that fits lowers the damage.
/// Ties go to the earlier linear. `damage` must be a pure function; as long as some candidate helps, it is called at
/// most n + 1 + (chosen linears + 1) x (candidates + 1) times without whole_curve. Throws Error(kInvalidArgument):
/// options out of bounds, linears that cannot be sparse alone pass the budget, no FLOPs.
SkipChoice search_skips(const std::vector<SkipCandidate>& linears, const SkipSearchOptions& options,
                        const std::function<double(const SparseSet&)>& damage, const SkipSearchProgress& progress = {});

}  // namespace rtlynx::calibration
