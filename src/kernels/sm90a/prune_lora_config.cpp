#include "kernels/sm90a/prune_lora_config.h"

#include <string>

#include "kernels/sm90a/checks.h"
#include "kernels/sm90a/prune_compress_config.h"
#include "kernels/sm90a/spmm_config.h"

namespace rtlynx::sm90a {
Status check_lora_rank(const std::string& what, int64_t rank) {
  if (rank >= 8 && rank <= kMaxLoraRank && rank % 8 == 0) return {};
  return {ErrorCode::kUnsupported, what + " must be a multiple of 8 in 8.." + std::to_string(kMaxLoraRank) +
                                       " for the Hopper kernels (got " + std::to_string(rank) + ")"};
}

Result<PruneLoraPlan> plan_prune_compress_lora(const MatrixView& x, const MutableCompressedView& out,
                                               const LoraDown& lora) {
  const Result<PruneCompressPlan> prune = plan_prune_compress(x, out);
  if (!prune.ok()) return prune.status();
  const std::string name = "prune_compress_lora: ";
  if (Status status = check_lora_down(name, lora, out); !status.ok()) return status;
  const Status apart = check_apart(name + "t and x", lora.t.data, span_bytes(read_only(lora.t)), x.data, span_bytes(x));
  if (!apart.ok()) return apart;
  PruneLoraPlan plan;
  plan.m = out.m;
  plan.k_blocks = prune.value().k_blocks;
  plan.ctas = prune.value().row_blocks * kLoraClusterSize;
  plan.rank = static_cast<int>(lora.t.cols);
  plan.columns = lora_columns(plan.rank);
  return plan;
}

Status check_lora_down(const std::string& name, const LoraDown& lora, const MutableCompressedView& out) {
  const MatrixView t = read_only(lora.t), &lora_a = lora.lora_a;
  if (Status status = check_lora_rank(name + "the rank", t.cols); !status.ok()) return status;
  if (Status status = check_matrix(name + "t", t, out.m, t.cols); !status.ok()) return status;
  if (Status status = check_matrix(name + "lora_a", lora_a, t.cols, out.k); !status.ok()) return status;
  const int64_t blocks = compressed_bytes(out.m, out.k).value(), read = span_bytes(lora_a);
  for (const Status& status : {check_apart(name + "t and lora_a", t.data, span_bytes(t), lora_a.data, read),
                               check_apart(name + "out's blocks and lora_a", out.blocks, blocks, lora_a.data, read),
                               check_apart(name + "out's scale and lora_a", out.scale, 4 * out.m, lora_a.data, read),
                               check_apart(name + "out's blocks and t", out.blocks, blocks, t.data, span_bytes(t)),
                               check_apart(name + "out's scale and t", out.scale, 4 * out.m, t.data, span_bytes(t))}) {
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace rtlynx::sm90a
