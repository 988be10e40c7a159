#include "kernels/sm90a/prune_compress_fp8_config.h"

#include "kernels/sm90a/checks.h"

namespace rtlynx::sm90a {

Result<int64_t> compressed_fp8_bytes(int64_t m, int64_t k) {
  if (Status status = check_extent("compressed_fp8_bytes: m", m); !status.ok()) return status;
  if (Status status = check_extent("compressed_fp8_bytes: k", k); !status.ok()) return status;
  if (Status status = check_multiple("compressed_fp8_bytes: k", k, kFp8BlockK); !status.ok()) return status;
  // At most 2^24 x 2^23 blocks: the product stays below 2^60.
  return (m + kBlockRows - 1) / kBlockRows * (k / kFp8BlockK) * kFp8BlockBytes;
}

Status check_compressed_fp8(const std::string& what, const CompressedFp8View& view) {
  if (Status status = check_extent(what + "'s m", view.m); !status.ok()) return status;
  if (Status status = check_extent(what + "'s k", view.k); !status.ok()) return status;
  if (Status status = check_multiple(what + "'s k", view.k, kFp8BlockK); !status.ok()) return status;
  if (Status status = check_pointer(what + "'s blocks", view.blocks, 16); !status.ok()) return status;
  return check_pointer(what + "'s factor", view.factor, 4);
}

Result<PruneCompressFp8Plan> plan_prune_compress_fp8(const MatrixView& x, const MutableCompressedFp8View& out) {
  const std::string name = "prune_compress_fp8: ";
  if (Status status = check_compressed_fp8(name + "out", read_only(out)); !status.ok()) return status;
  if (out.k > kFp8PruneMaxK) {
    return Status(ErrorCode::kUnsupported,
                  name + "k must be at most " + std::to_string(kFp8PruneMaxK) + " (got " + std::to_string(out.k) + ")");
  }
  if (Status status = check_matrix(name + "x", x, out.m, out.k); !status.ok()) return status;
  const int64_t bytes = compressed_fp8_bytes(out.m, out.k).value();
  for (const Status& status :
       {check_apart(name + "out's blocks and x", out.blocks, bytes, x.data, span_bytes(x)),
        check_apart(name + "out's factor and x", out.factor, 4 * out.m, x.data, span_bytes(x)),
        check_apart(name + "out's blocks and factor", out.blocks, bytes, out.factor, 4 * out.m)}) {
    if (!status.ok()) return status;
  }
  PruneCompressFp8Plan plan;
  plan.k_blocks = out.k / kFp8BlockK;
  plan.rows = (out.m + kBlockRows - 1) / kBlockRows * kBlockRows;
  plan.warps_per_row = fp8_warps_per_row(out.k);
  plan.ctas = plan.rows * plan.warps_per_row / kFp8PruneWarps;
  return plan;
}

Status check_quantize_weight_fp8(const MatrixView& w, const MutableMatrixView& values, const float* factor) {
  const std::string name = "quantize_weight_fp8: ";
  if (Status status = check_extent(name + "n", w.rows); !status.ok()) return status;
  if (Status status = check_extent(name + "k", w.cols); !status.ok()) return status;
  if (Status status = check_multiple(name + "k", w.cols, kFp8BlockK); !status.ok()) return status;
  if (Status status = check_matrix(name + "w", w, w.rows, w.cols); !status.ok()) return status;
  const MatrixView out = read_only(values);
  if (Status status = check_matrix(name + "values", out, w.rows, w.cols, DType::kF8E4M3); !status.ok()) return status;
  if (Status status = check_pointer(name + "factor", factor, 16); !status.ok()) return status;
  for (const Status& status :
       {check_apart(name + "values and w", out.data, span_bytes(out), w.data, span_bytes(w)),
        check_apart(name + "factor and w", factor, 4 * w.rows, w.data, span_bytes(w)),
        check_apart(name + "values and factor", out.data, span_bytes(out), factor, 4 * w.rows)}) {
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace rtlynx::sm90a
