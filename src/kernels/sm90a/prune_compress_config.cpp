#include "kernels/sm90a/prune_compress_config.h"

#include <string>

#include "kernels/sm90a/checks.h"

namespace rtlynx::sm90a {
namespace {

PruneCompressPlan plan_of(int64_t m, int64_t k) {
  PruneCompressPlan plan;
  plan.m = m;
  plan.k_blocks = k / kBlockK;
  plan.row_blocks = (m + kBlockRows - 1) / kBlockRows;
  plan.ctas = plan.row_blocks * (kBlockRows / kPruneRows);
  return plan;
}

}  // namespace

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
  return plan_of(out.m, out.k);
}

int64_t square_parts(int64_t k) {
  return (k + kSquaresColumns - 1) / kSquaresColumns;
}

int64_t squares_bytes(int64_t m, int64_t k) {
  return square_parts(k) * m * static_cast<int64_t>(2 * sizeof(float));
}

Status check_slice(const std::string& what, const CompressedSlice& out, int64_t m, int64_t width) {
  const MutableCompressedView& matrix = out.matrix;
  if (Status status = check_compressed(what, read_only(matrix)); !status.ok()) return status;
  if (matrix.m != m) {
    return {ErrorCode::kInvalidArgument,
            what + "'s m must be " + std::to_string(m) + " (got " + std::to_string(matrix.m) + ")"};
  }
  if (Status status = check_multiple(what + "'s width", width, kBlockK); !status.ok()) return status;
  if (Status status = check_multiple(what + "'s k_offset", out.k_offset, kSquaresColumns); !status.ok()) return status;
  if (out.k_offset < 0 || out.k_offset > matrix.k - width) {
    return {ErrorCode::kInvalidArgument, what + "'s k_offset must be in 0.." + std::to_string(matrix.k - width) +
                                             ", to leave room for " + std::to_string(width) + " of " +
                                             std::to_string(matrix.k) + " k (got " + std::to_string(out.k_offset) +
                                             ")"};
  }
  if (Status status = check_pointer(what + "'s squares", out.squares, 8); !status.ok()) return status;
  return check_apart(what + "'s blocks and squares", matrix.blocks, compressed_bytes(matrix.m, matrix.k).value(),
                     out.squares, squares_bytes(matrix.m, matrix.k));
}

Result<PruneCompressPlan> plan_prune_compress_slice(const MatrixView& x, const CompressedSlice& out) {
  const std::string name = "prune_compress_slice: ";
  if (Status status = check_extent(name + "width", x.cols); !status.ok()) return status;
  if (Status status = check_slice(name + "out", out, x.rows, x.cols); !status.ok()) return status;
  if (Status status = check_matrix(name + "x", x, out.matrix.m, x.cols); !status.ok()) return status;
  const int64_t bytes = compressed_bytes(out.matrix.m, out.matrix.k).value();
  if (Status status = check_apart(name + "out's blocks and x", out.matrix.blocks, bytes, x.data, span_bytes(x));
      !status.ok()) {
    return status;
  }
  if (Status status = check_apart(name + "out's squares and x", out.squares, squares_bytes(out.matrix.m, out.matrix.k),
                                  x.data, span_bytes(x));
      !status.ok()) {
    return status;
  }
  return plan_of(out.matrix.m, x.cols);
}

Status check_finish_scale(const MutableCompressedView& matrix, const float* squares) {
  const std::string name = "finish_scale: ";
  if (Status status = check_extent(name + "m", matrix.m); !status.ok()) return status;
  if (Status status = check_extent(name + "k", matrix.k); !status.ok()) return status;
  if (Status status = check_pointer(name + "scale", matrix.scale, 4); !status.ok()) return status;
  if (Status status = check_pointer(name + "squares", squares, 8); !status.ok()) return status;
  return check_apart(name + "scale and squares", matrix.scale, 4 * matrix.m, squares,
                     squares_bytes(matrix.m, matrix.k));
}

}  // namespace rtlynx::sm90a
