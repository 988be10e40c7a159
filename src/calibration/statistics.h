#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "linear/linear.h"

namespace rtlynx::calibration {

/// Linears that read the same tensor (q, k and v of one stream), as indices into the list of linears in the order of
/// their calls. Their sums over tokens are the same and are kept once.
using InputGroups = std::vector<std::vector<std::size_t>>;

/// Runs one forward and sees which linears are called with the same tensor. Throws Error(kInternal) where a linear is
/// never called or called twice.
InputGroups find_input_groups(std::span<Linear* const> linears, const std::function<void()>& forward);

/// Sums over the tokens of one group's input X [tokens, k]; R = X - s X~ is what pruning with norm compensation loses.
struct InputSums {
  at::Tensor gram;    ///< X^T X [k, k], fp64
  at::Tensor cross;   ///< X^T R [k, k], fp64
  double energy = 0;  ///< sum of x^2
  double kept = 0;    ///< sum of x~^2
  int64_t tokens = 0;
};

/// Everything gathered for some groups; plain data, so that it can be saved and read back bit by bit.
struct Sums {
  std::vector<InputSums> inputs;     ///< one per group
  std::vector<double> error_energy;  ///< per linear of the groups, in their order: tr(E^T E), E = R W^T
};

/// Zero sums for the groups, on the devices of their linears.
Sums empty_sums(std::span<Linear* const> linears, const InputGroups& groups);

/// What a chunk of prompts is, for the messages and for the choice of tokens.
struct Chunk {
  int64_t index = 0;         ///< counted over the whole run
  int64_t first_prompt = 0;  ///< its place in the list of prompts
  std::span<const std::string> prompts;
};

/// Observes the linears of some groups while the dense model runs and adds to `sums`. Products are taken in fp32 over
/// at most 4,096 tokens and added in fp64, in the order of the calls, so equal runs give equal bits. Of each call every
/// token_stride-th token is used; the first one moves with the call, so all positions take part.
class Collector {
 public:
  /// Sets the observers of the groups' linears; the destructor removes them. Everything must outlive it.
  Collector(std::span<Linear* const> linears, const InputGroups& groups, int64_t token_stride, Sums& sums);
  ~Collector();
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  /// Must be called before each chunk. Inputs are then [prompts, ..., k]; one that holds NaN or Inf is refused with
  /// Error(kNonFinite) naming the linear, the prompt and its number.
  void begin_chunk(const Chunk& chunk);

 private:
  struct Group;
  void observe(Group& group, std::size_t member, const Linear& linear, const at::Tensor& x);
  void add_input(Group& group, const Linear& linear, const at::Tensor& x);
  void require_finite(const Linear& linear, const at::Tensor& rows) const;

  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<Linear*> observed_;
  int64_t token_stride_;
  Sums& sums_;
  Chunk chunk_;
};

}  // namespace rtlynx::calibration
