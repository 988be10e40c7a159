#include "kernels/sm90a/prune_compress_config.h"

#include <string>

#include "kernels/sm90a/checks.h"

namespace rtlynx::sm90a {

Result<int64_t> compressed_bytes(int64_t m, int64_t k) {
  if (Status status = check_extent("compressed_bytes: m", m); !status.ok()) return status;
  if (Status status = check_extent("compressed_bytes: k", k); !status.ok()) return status;
  if (Status status = check_multiple("compressed_bytes: k", k, kBlockK); !status.ok()) return status;
  // At most 2^24 blocks each way, 2^48 in all: the product stays below 2^61.
  return (m + kBlockRows - 1) / kBlockRows * (k / kBlockK) * kBlockBytes;
}

Status check_compressed(const std::string& what, const CompressedView& view) {
  if (Status status = check_extent(what + "'s m", view.m); !status.ok()) return status;
  if (Status status = check_extent(what + "'s k", view.k); !status.ok()) return status;
  if (Status status = check_multiple(what + "'s k", view.k, kBlockK); !status.ok()) return status;
  return check_pointer(what + "'s blocks", view.blocks, 16);
}

Result<PruneCompressPlan> plan_prune_compress(const MatrixView& x, const MutableCompressedView& out) {
  const std::string name = "prune_compress: ";
  if (Status status = check_compressed(name + "out", read_only(out)); !status.ok()) return status;
  if (Status status = check_pointer(name + "out's scale", out.scale, 4); !status.ok()) return status;
  if (Status status = check_matrix(name + "x", x, out.m, out.k); !status.ok()) return status;
  const int64_t bytes = compressed_bytes(out.m, out.k).value();
  for (const Status& status : {check_apart(name + "out's blocks and x", out.blocks, bytes, x.data, span_bytes(x)),
                               check_apart(name + "out's scale and x", out.scale, 4 * out.m, x.data, span_bytes(x)),
                               check_apart(name + "out's blocks and scale", out.blocks, bytes, out.scale, 4 * out.m)}) {
    if (!status.ok()) return status;
  }
  PruneCompressPlan plan;
  plan.m = out.m;
  plan.k_blocks = out.k / kBlockK;
  plan.row_blocks = (out.m + kBlockRows - 1) / kBlockRows;
  plan.ctas = plan.row_blocks * (kBlockRows / kPruneRows);
  return plan;
}

}  // namespace rtlynx::sm90a
