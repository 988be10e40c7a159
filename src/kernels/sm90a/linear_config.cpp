#include "kernels/sm90a/linear_config.h"

#include <algorithm>

#include "kernels/sm90a/checks.h"
#include "kernels/sm90a/prune_compress_config.h"
#include "kernels/sm90a/prune_lora_config.h"
#include "kernels/sm90a/spmm_config.h"

namespace rtlynx::sm90a {
namespace {

std::string tile_name(int tile) {
  return std::to_string(kSpmmTiles[tile].rows()) + "x" + std::to_string(kSpmmTiles[tile].columns);
}

/// "1.16": two digits, rounded down, without a dependence on the locale.
std::string two_digits(double value) {
  const auto hundredths = static_cast<int64_t>(value * 100);
  const std::string fraction = std::to_string(hundredths % 100);
  return std::to_string(hundredths / 100) + (fraction.size() < 2 ? ".0" : ".") + fraction;
}

std::string thousands(double value) {
  return std::to_string(static_cast<int64_t>(value / 1000)) + " k";
}

/// cuBLAS has tiles for every shape, so that waves are left out in its favour; thin products wait for W and X.
double dense_cycles(int64_t m, int64_t n, int64_t k, const DeviceTraits& device) {
  const auto rows = static_cast<double>(m), columns = static_cast<double>(n), depth = static_cast<double>(k);
  const double products = rows * columns * depth / (kLinearCosts.dense_products * device.multiprocessors);
  const double bytes = 2 * (rows * depth + columns * depth + rows * columns) / kLinearCosts.memory_bytes;
  return std::max(products, bytes) + kLinearCosts.launch;
}

/// Pruning, and X L_A as if it read X once more: fused with pruning it costs as much at 4096 rows, less beyond.
double preparation_cycles(int64_t m, int64_t k, int64_t rank) {
  const double elements = static_cast<double>(m) * static_cast<double>(k);
  const double prune = elements * kLinearCosts.prune_bytes / kLinearCosts.memory_bytes + kLinearCosts.launch;
  const double lora_down = elements * 2 / kLinearCosts.memory_bytes + kLinearCosts.launch;
  return rank > 0 ? prune + lora_down : prune;
}

/// Where T begins in the workspace: rows of T are 16-byte aligned.
int64_t t_offset(int64_t m, int64_t k) {
  return compressed_bytes(m, k).value() + (4 * m + 15) / 16 * 16;
}

/// Pruning writes the workspace before the product reads these; y and x are checked by the operations themselves.
Status check_operands(const MatrixView& x, const MatrixView& w, const MutableMatrixView& y, const SpmmOptions& options,
                      const MatrixView& lora_a, const void* workspace, int64_t workspace_bytes) {
  struct Operand {
    const char* name;
    const MatrixView& view;
  };
  for (const Operand& operand :
       {Operand{"w", w}, Operand{"bias", options.bias}, Operand{"lora_down", options.lora_down},
        Operand{"lora_up", options.lora_up}, Operand{"gate", options.gate}, Operand{"residual", options.residual},
        Operand{"lora_a", lora_a}}) {
    if (operand.view.data == nullptr) continue;
    Status status = check_apart(std::string("linear: the workspace and ") + operand.name, workspace, workspace_bytes,
                                operand.view.data, span_bytes(operand.view));
    if (!status.ok()) return status;
  }
  if (lora_a.data != nullptr) {
    Status status =
        check_apart("linear: y and lora_a", y.data, span_bytes(read_only(y)), lora_a.data, span_bytes(lora_a));
    if (!status.ok()) return status;
  }
  return check_apart("linear: y and x", y.data, span_bytes(read_only(y)), x.data, span_bytes(x));
}

}  // namespace

Status check_linear_sizes(int64_t n, int64_t k, int64_t rank) {
  if (Status status = check_extent("n", n); !status.ok()) return status;
  if (Status status = check_extent("k", k); !status.ok()) return status;
  if (Status status = check_multiple("k", k, kBlockK); !status.ok()) return status;
  if (Status status = check_multiple("n", n, 8); !status.ok()) return status;
  if (rank >= 0 && rank <= kMaxLoraRank && rank % 8 == 0) return {};
  return {ErrorCode::kUnsupported, "the rank must be a multiple of 8, at most " + std::to_string(kMaxLoraRank) +
                                       ", for the Hopper kernels (got " + std::to_string(rank) + ")"};
}

Result<int64_t> linear_workspace_bytes(int64_t m, int64_t k, int64_t rank) {
  const Result<int64_t> blocks = compressed_bytes(m, k);
  if (!blocks.ok()) return blocks.status();
  if (rank == 0) return blocks.value() + 4 * m;
  if (Status status = check_lora_rank("linear: the rank", rank); !status.ok()) return status;
  return t_offset(m, k) + 2 * m * rank;
}

LinearWorkspace divide_workspace(void* workspace, int64_t m, int64_t k, int64_t rank) {
  auto* bytes = static_cast<uint8_t*>(workspace);
  LinearWorkspace parts;
  parts.compressed = {bytes, reinterpret_cast<float*>(bytes + compressed_bytes(m, k).value()), m, k};
  if (rank > 0) parts.t = {bytes + t_offset(m, k), m, rank, rank, DType::kBF16};
  return parts;
}

Result<LinearSteps> plan_linear_steps(const MatrixView& x, const MatrixView& w, const MutableMatrixView& y,
                                      const SpmmOptions& options, void* workspace, int64_t workspace_bytes,
                                      const MatrixView& lora_a) {
  const bool makes_t = lora_a.data != nullptr;
  const int64_t rank = makes_t ? lora_a.rows : 0;
  if (makes_t && (options.lora_down.data != nullptr || options.lora_up.data == nullptr)) {
    return Status(ErrorCode::kInvalidArgument, "linear: lora_a takes the place of lora_down and needs lora_up");
  }
  const Result<int64_t> needed = linear_workspace_bytes(x.rows, x.cols, rank);
  if (!needed.ok()) return Status(needed.status().code(), "linear: x: " + needed.status().message());
  if (Status status = check_pointer("linear: the workspace", workspace, 16); !status.ok()) return status;
  if (workspace_bytes < needed.value()) {
    return Status(ErrorCode::kInvalidArgument, "linear: the workspace must have " + std::to_string(needed.value()) +
                                                   " bytes (got " + std::to_string(workspace_bytes) + ")");
  }
  const LinearWorkspace parts = divide_workspace(workspace, x.rows, x.cols, rank);
  LinearSteps steps{parts.compressed, {lora_a, parts.t}, options};
  if (makes_t) {
    const Result<PruneLoraPlan> prune = plan_prune_compress_lora(x, steps.compressed, steps.lora);
    if (!prune.ok()) return prune.status();
    steps.options.lora_down = read_only(parts.t);
  } else if (const Result<PruneCompressPlan> prune = plan_prune_compress(x, steps.compressed); !prune.ok()) {
    return prune.status();
  }
  if (Status status = check_spmm(read_only(steps.compressed), w, y, steps.options); !status.ok()) return status;
  if (Status status = check_operands(x, w, y, options, lora_a, workspace, needed.value()); !status.ok()) return status;
  return steps;
}

std::string LinearPlan::to_string() const {
  std::string text = std::string(execution_name(execution)) + " m=" + std::to_string(m) + " n=" + std::to_string(n) +
                     " k=" + std::to_string(k) + " r=" + std::to_string(rank);
  if (tile >= 0) {
    text += " tile " + tile_name(tile) + ", " + thousands(sparse_cycles) + " cycles, dense " + thousands(dense_cycles);
  }
  return text + ": " + reason;
}

LinearPlan plan_linear(int64_t m, int64_t n, int64_t k, int64_t rank, const DeviceTraits& device) {
  LinearPlan plan;
  plan.m = m;
  plan.n = n;
  plan.k = k;
  plan.rank = rank;
  for (const Status& status : {check_extent("m", m), check_linear_sizes(n, k, rank)}) {
    plan.reason = status.message();
    if (!status.ok()) return plan;
  }
  int clusters[kSpmmTileCount];
  std::fill(std::begin(clusters), std::end(clusters), device.multiprocessors / kClusterSize);
  const Result<SpmmPlan> product = plan_spmm(m, n, k, rank, clusters);
  if (!product.ok()) {
    plan.reason = product.status().message();
    return plan;
  }
  plan.tile = product.value().tile;
  plan.sparse_cycles =
      preparation_cycles(m, k, rank) + static_cast<double>(product.value().estimated_cycles) + kLinearCosts.launch;
  plan.dense_cycles = dense_cycles(m, n, k, device);
  const double speedup = plan.dense_cycles / plan.sparse_cycles;
  if (m < kLinearCosts.least_rows) {
    plan.reason = "fewer than " + std::to_string(kLinearCosts.least_rows) + " rows were never measured to gain";
  } else if (n < kLinearCosts.least_extent || k < kLinearCosts.least_extent) {
    plan.reason = "n or k below " + std::to_string(kLinearCosts.least_extent) + " were never measured to gain";
  } else if (speedup < kLinearCosts.least_speedup) {
    plan.reason = "pruning, the branch and partial waves cost too much here: " + two_digits(speedup) + "x expected";
  } else {
    plan.execution = Execution::kSparse;
    plan.reason = two_digits(speedup) + "x expected";
  }
  return plan;
}

}  // namespace rtlynx::sm90a
