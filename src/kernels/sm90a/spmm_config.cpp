#include "kernels/sm90a/spmm_config.h"

#include <algorithm>

#include "kernels/sm90a/checks.h"
#include "kernels/sm90a/prune_compress_config.h"
#include "kernels/sm90a/prune_compress_fp8_config.h"

namespace rtlynx::sm90a {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

SpmmPlan plan_with(int tile_index, int64_t m, int64_t n, int64_t k, int64_t rank, int clusters) {
  const SpmmTile& tile = kSpmmTiles[tile_index];
  SpmmPlan plan;
  plan.tile = tile_index;
  plan.m = m;
  plan.n = n;
  plan.k = k;
  plan.rank = rank;
  plan.order.row_tiles = static_cast<int>(ceil_div(m, kClusterSize * tile.rows()));
  plan.order.column_tiles = static_cast<int>(ceil_div(n, tile.columns));
  const int64_t tiles = int64_t{plan.order.row_tiles} * plan.order.column_tiles;
  plan.clusters = static_cast<int>(std::min<int64_t>(clusters, tiles));
  plan.waves = static_cast<int>(ceil_div(tiles, plan.clusters));
  const int64_t steps = k / kBlockK + ceil_div(rank, kLoraStepColumns);
  plan.estimated_cycles = plan.waves * (steps * tile.cycles_per_step + tile.cycles_per_tile);
  return plan;
}

Status check_lora(const CompressedView& a, int64_t n, const SpmmOptions& options) {
  const MatrixView &down = options.lora_down, &up = options.lora_up;
  if (down.data == nullptr && up.data == nullptr) return {};
  if (down.data == nullptr || up.data == nullptr) {
    return {ErrorCode::kInvalidArgument, "spmm: lora_down and lora_up must be given together (got one of them)"};
  }
  if (down.cols < 8 || down.cols > kMaxLoraRank || down.cols % 8 != 0) {
    return {ErrorCode::kUnsupported, "spmm: the rank must be a multiple of 8 in 8.." + std::to_string(kMaxLoraRank) +
                                         " (got " + std::to_string(down.cols) + ")"};
  }
  if (Status status = check_matrix("spmm: lora_down", down, a.m, down.cols); !status.ok()) return status;
  return check_matrix("spmm: lora_up", up, n, down.cols);
}

/// Everything that is read beside the compressed activations.
Status check_other_inputs(const CompressedView& a, const MatrixView& w, DType dtype, const SpmmOptions& options) {
  if (Status status = check_extent("spmm: n", w.rows); !status.ok()) return status;
  if (Status status = check_multiple("spmm: n", w.rows, 8); !status.ok()) return status;
  if (Status status = check_matrix("spmm: w", w, w.rows, a.k, dtype); !status.ok()) return status;
  if (options.bias.data != nullptr) {
    if (Status status = check_matrix("spmm: bias", options.bias, 1, w.rows); !status.ok()) return status;
  }
  return check_lora(a, w.rows, options);
}

/// Everything that is read.
Status check_inputs(const CompressedView& a, const MatrixView& w, const SpmmOptions& options) {
  if (Status status = check_compressed("spmm: a", a); !status.ok()) return status;
  if (options.use_scale) {
    if (Status status = check_pointer("spmm: a's scale", a.scale, 4); !status.ok()) return status;
  }
  return check_other_inputs(a, w, DType::kBF16, options);
}

/// A piece of memory that is written.
struct Written {
  std::string name;
  const void* data;
  int64_t bytes;
};

Status check_apart_from_inputs(const Written& out, const CompressedView& a, const MatrixView& w,
                               const SpmmOptions& options) {
  const std::string what = "spmm: " + out.name + " and ";
  const bool fp8 = w.dtype == DType::kF8E4M3;
  const int64_t a_bytes = (fp8 ? compressed_fp8_bytes(a.m, a.k) : compressed_bytes(a.m, a.k)).value();
  if (Status status = check_apart(what + "a's blocks", out.data, out.bytes, a.blocks, a_bytes); !status.ok()) {
    return status;
  }
  if (options.use_scale) {
    if (Status status = check_apart(what + "a's scale", out.data, out.bytes, a.scale, 4 * a.m); !status.ok()) {
      return status;
    }
  }
  struct Operand {
    const char* name;
    const MatrixView& view;
  };
  for (const Operand& operand :
       {Operand{"w", w}, Operand{"bias", options.bias}, Operand{"lora_down", options.lora_down},
        Operand{"lora_up", options.lora_up}, Operand{"gate", options.gate}}) {
    if (operand.view.data == nullptr) continue;
    Status status = check_apart(what + operand.name, out.data, out.bytes, operand.view.data, span_bytes(operand.view));
    if (!status.ok()) return status;
  }
  return {};
}

Status check_gate(const CompressedView& a, int64_t n, const MutableMatrixView& d, const SpmmOptions& options) {
  const MatrixView &gate = options.gate, &residual = options.residual;
  if (gate.data == nullptr && residual.data == nullptr) return {};
  if (gate.data == nullptr || residual.data == nullptr) {
    return {ErrorCode::kInvalidArgument, "spmm: gate and residual must be given together (got one of them)"};
  }
  if (options.activation != Activation::kNone) {
    return {ErrorCode::kUnsupported, "spmm: a gate cannot be combined with an activation"};
  }
  if (gate.rows < 1 || a.m % gate.rows != 0) {
    return {ErrorCode::kInvalidArgument, "spmm: gate must have one row per image, a divisor of m = " +
                                             std::to_string(a.m) + " (got " + std::to_string(gate.rows) + " rows)"};
  }
  if (Status status = check_matrix("spmm: gate", gate, gate.rows, n); !status.ok()) return status;
  if (Status status = check_matrix("spmm: residual", residual, a.m, n); !status.ok()) return status;
  if (residual.data == d.data && residual.row_stride == d.row_stride) return {};
  return check_apart("spmm: d and residual", d.data, span_bytes(read_only(d)), residual.data, span_bytes(residual));
}

}  // namespace

std::string SpmmPlan::to_string() const {
  const SpmmTile& shape = kSpmmTiles[tile];
  return std::to_string(shape.rows()) + "x" + std::to_string(shape.columns) + " m=" + std::to_string(m) +
         " n=" + std::to_string(n) + " k=" + std::to_string(k) + " r=" + std::to_string(rank) + ": " +
         std::to_string(order.count()) + " cluster tiles on " + std::to_string(clusters) + " clusters, " +
         std::to_string(waves) + " waves, " + std::to_string(estimated_cycles / 1000) + " k cycles";
}

Result<SpmmPlan> plan_spmm(int64_t m, int64_t n, int64_t k, int64_t rank, const int (&clusters)[kSpmmTileCount],
                           int tile) {
  if (tile < -1 || tile >= kSpmmTileCount) {
    return Status(ErrorCode::kInvalidArgument, "spmm: tile must be -1 or an index below " +
                                                   std::to_string(kSpmmTileCount) + " (got " + std::to_string(tile) +
                                                   ")");
  }
  SpmmPlan best;
  for (int i = 0; i < kSpmmTileCount; ++i) {
    if (clusters[i] < 1 || (tile >= 0 && tile != i)) continue;
    // Tile numbers are 32-bit in the kernel; 2^30 x 2^30 of the smallest tile would pass that.
    const int64_t rows = ceil_div(m, kClusterSize * kSpmmTiles[i].rows()), columns = ceil_div(n, kSpmmTiles[i].columns);
    if (rows * columns > kMaxExtent) continue;
    const SpmmPlan plan = plan_with(i, m, n, k, rank, clusters[i]);
    if (best.clusters == 0 || plan.estimated_cycles < best.estimated_cycles) best = plan;
  }
  if (best.clusters == 0) {
    return Status(ErrorCode::kUnsupported, "spmm: no tile of the Hopper kernels fits this device for m=" +
                                               std::to_string(m) + " n=" + std::to_string(n));
  }
  return best;
}

Status check_spmm(const CompressedView& a, const MatrixView& w, const MutableMatrixView& d,
                  const SpmmOptions& options) {
  if (Status status = check_inputs(a, w, options); !status.ok()) return status;
  if (Status status = check_matrix("spmm: d", read_only(d), a.m, w.rows); !status.ok()) return status;
  if (Status status = check_gate(a, w.rows, d, options); !status.ok()) return status;
  return check_apart_from_inputs({"d", d.data, span_bytes(read_only(d))}, a, w, options);
}

Status check_spmm_fp8(const CompressedFp8View& a, const Fp8Weight& w, const MutableMatrixView& d,
                      const SpmmOptions& options) {
  if (Status status = check_compressed_fp8("spmm: a", a); !status.ok()) return status;
  const CompressedView view{a.blocks, a.factor, a.m, a.k};
  if (Status status = check_other_inputs(view, w.values, DType::kF8E4M3, options); !status.ok()) return status;
  if (Status status = check_pointer("spmm: w's factor", w.factor, 16); !status.ok()) return status;
  if (!options.use_scale) {
    return {ErrorCode::kInvalidArgument, "spmm: use_scale must be true with FP8, whose values mean nothing without it"};
  }
  if (Status status = check_matrix("spmm: d", read_only(d), a.m, w.values.rows); !status.ok()) return status;
  if (Status status = check_gate(view, w.values.rows, d, options); !status.ok()) return status;
  const Written out{"d", d.data, span_bytes(read_only(d))};
  if (Status status = check_apart("spmm: d and w's factor", out.data, out.bytes, w.factor, 4 * w.values.rows);
      !status.ok()) {
    return status;
  }
  return check_apart_from_inputs(out, view, w.values, options);
}

Status check_spmm_compress(const CompressedView& a, const MatrixView& w, const CompressedSlice& out,
                           const SpmmOptions& options) {
  if (Status status = check_inputs(a, w, options); !status.ok()) return status;
  if (options.gate.data != nullptr || options.residual.data != nullptr) {
    return {ErrorCode::kUnsupported, "spmm: compressed output cannot be combined with a gate and residual"};
  }
  if (Status status = check_slice("spmm: out", out, a.m, w.rows); !status.ok()) return status;
  const int64_t blocks_bytes = compressed_bytes(out.matrix.m, out.matrix.k).value();
  const Written blocks{"out's blocks", out.matrix.blocks, blocks_bytes};
  const Written squares{"out's squares", out.squares, squares_bytes(out.matrix.m, out.matrix.k)};
  if (Status status = check_apart_from_inputs(blocks, a, w, options); !status.ok()) return status;
  return check_apart_from_inputs(squares, a, w, options);
}

Epilogue epilogue_of(const SpmmOptions& options, bool compressed) {
  const bool gelu = options.activation == Activation::kGeluTanh;
  if (compressed) return gelu ? Epilogue::kGeluCompressed : Epilogue::kCompressed;
  if (options.gate.data != nullptr) return Epilogue::kGatedResidual;
  return gelu ? Epilogue::kGelu : Epilogue::kDense;
}

}  // namespace rtlynx::sm90a
