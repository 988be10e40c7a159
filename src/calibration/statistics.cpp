#include "calibration/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>

#include "linear/sparse_ops.h"
#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

/// Tokens of one fp32 product: its rounding stays near 2^-24 * sqrt(4096) of the sum, and the buffers stay small.
constexpr int64_t kTokensPerProduct = 4096;
/// Calls between the first and the last reader of one tensor. FLUX's readers of one input follow each other, with at
/// most the other stream's between them; holding more inputs than that would only cost memory.
constexpr std::size_t kInputsHeld = 8;

bool same_tensor(const at::Tensor& a, const at::Tensor& b) {
  return a.const_data_ptr() == b.const_data_ptr() && a.numel() == b.numel() && a.scalar_type() == b.scalar_type() &&
         a.size(-1) == b.size(-1) && a.is_contiguous() == b.is_contiguous();
}

/// Takes the observers off again, also when a forward throws.
class ObserverGuard {
 public:
  explicit ObserverGuard(std::span<Linear* const> linears) : linears_(linears) {}
  ~ObserverGuard() {
    for (Linear* linear : linears_) linear->set_observer({});
  }
  ObserverGuard(const ObserverGuard&) = delete;
  ObserverGuard& operator=(const ObserverGuard&) = delete;

 private:
  std::span<Linear* const> linears_;
};

}  // namespace

InputGroups find_input_groups(std::span<Linear* const> linears, const std::function<void()>& forward) {
  InputGroups groups;
  // Holding the tensors keeps their memory from being used again, which would make strangers look alike.
  std::deque<std::pair<at::Tensor, std::size_t>> held;
  std::vector<int> calls(linears.size(), 0);
  const ObserverGuard guard(linears);
  for (std::size_t i = 0; i < linears.size(); ++i) {
    linears[i]->set_observer([&, i](const Linear&, const at::Tensor& x) {
      ++calls[i];
      const auto known =
          std::find_if(held.begin(), held.end(), [&](const auto& entry) { return same_tensor(entry.first, x); });
      if (known != held.end()) {
        groups[known->second].push_back(i);
        return;
      }
      held.emplace_back(x, groups.size());
      groups.push_back({i});
      if (held.size() > kInputsHeld) held.pop_front();
    });
  }
  forward();
  for (std::size_t i = 0; i < linears.size(); ++i) {
    if (calls[i] != 1) {
      throw Error(ErrorCode::kInternal,
                  fmt::format("{} was called {} times in one forward, expected once", linears[i]->name(), calls[i]));
    }
  }
  return groups;
}

Sums empty_sums(std::span<Linear* const> linears, const InputGroups& groups) {
  Sums sums;
  for (const auto& group : groups) {
    const Linear& leader = *linears[group.front()];
    const auto options = leader.weight().options().dtype(at::kDouble);
    sums.inputs.push_back({at::zeros({leader.k(), leader.k()}, options), at::zeros({leader.k(), leader.k()}, options)});
    sums.error_energy.resize(sums.error_energy.size() + group.size(), 0.0);
  }
  return sums;
}

/// What one group's observers share during a chunk.
struct Collector::Group {
  InputSums* sums = nullptr;
  std::size_t first_error = 0;  ///< of error_energy
  std::vector<std::size_t> members;
  std::size_t seen = 0;               ///< members called with the held input
  at::Tensor input;                   ///< held until the last member was called
  std::vector<at::Tensor> residuals;  ///< R of the chosen tokens, per product
  int64_t calls = 0;                  ///< in this chunk
};

Collector::Collector(std::span<Linear* const> linears, const InputGroups& groups, int64_t token_stride, Sums& sums)
    : token_stride_(token_stride), sums_(sums) {
  std::size_t errors = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    groups_.push_back(std::make_unique<Group>());
    Group& group = *groups_.back();
    group.sums = &sums_.inputs.at(g);
    group.first_error = errors;
    group.members = groups[g];
    errors += groups[g].size();
    for (std::size_t i = 0; i < group.members.size(); ++i) {
      Linear* linear = linears[group.members[i]];
      observed_.push_back(linear);
      linear->set_observer([this, &group, i](const Linear& l, const at::Tensor& x) { observe(group, i, l, x); });
    }
  }
}

Collector::~Collector() {
  for (Linear* linear : observed_) linear->set_observer({});
}

void Collector::begin_chunk(const Chunk& chunk) {
  chunk_ = chunk;
  for (const auto& group : groups_) group->calls = 0;
}

void Collector::observe(Group& group, std::size_t member, const Linear& linear, const at::Tensor& x) {
  if (member == 0) {
    add_input(group, linear, x);
    group.input = x;
    group.seen = 0;
  } else if (!group.input.defined() || !same_tensor(group.input, x)) {
    throw Error(ErrorCode::kInternal,
                fmt::format("{} no longer reads the same input as the linears it was grouped with", linear.name()));
  }
  const at::Tensor weight = linear.weight().to(at::kFloat).t();
  for (const at::Tensor& residual : group.residuals) {
    const at::Tensor error = at::matmul(residual, weight);
    sums_.error_energy[group.first_error + member] += error.to(at::kDouble).square_().sum().item<double>();
  }
  if (++group.seen == group.members.size()) {
    group.input.reset();
    group.residuals.clear();
  }
}

void Collector::add_input(Group& group, const Linear& linear, const at::Tensor& x) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  require_finite(linear, rows);
  const int64_t stride = std::min(token_stride_, std::max<int64_t>(rows.size(0), 1));
  const int64_t offset = (group.calls++ + chunk_.index) % stride;
  const at::Tensor chosen = rows.slice(0, offset, rows.size(0), stride);
  group.residuals.clear();
  for (int64_t start = 0; start < chosen.size(0); start += kTokensPerProduct) {
    const at::Tensor part = chosen.slice(0, start, std::min(start + kTokensPerProduct, chosen.size(0)));
    const at::Tensor pruned = prune_24(part);
    const at::Tensor full = part.to(at::kFloat), kept = pruned.to(at::kFloat);
    const at::Tensor residual = full - token_scale(part, pruned) * kept;
    InputSums& sums = *group.sums;
    sums.gram.add_(at::matmul(full.t(), full));
    sums.cross.add_(at::matmul(full.t(), residual));
    sums.energy += full.to(at::kDouble).square_().sum().item<double>();
    sums.kept += kept.to(at::kDouble).square_().sum().item<double>();
    sums.tokens += part.size(0);
    group.residuals.push_back(residual);
  }
}

void Collector::require_finite(const Linear& linear, const at::Tensor& rows) const {
  const at::Tensor finite = rows.isfinite().all(-1);
  if (finite.all().item<bool>()) {
    return;
  }
  const int64_t row = finite.to(at::kByte).argmin().item<int64_t>();
  const auto prompts = static_cast<int64_t>(chunk_.prompts.size());
  const int64_t within =
      std::min(row / std::max<int64_t>(rows.size(0) / std::max<int64_t>(prompts, 1), 1), prompts - 1);
  throw Error(ErrorCode::kNonFinite,
              fmt::format("the input of {} holds NaN or Inf for prompt {} (\"{:.60}\"), expected finite activations",
                          linear.name(), chunk_.first_prompt + within + 1,
                          prompts == 0 ? "" : chunk_.prompts[static_cast<std::size_t>(within)]));
}

}  // namespace rtlynx::calibration
