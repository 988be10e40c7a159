#include "kernels/sm90a/norm_modulate_config.h"

#include <cmath>
#include <string>
#include <utility>

#include "kernels/sm90a/checks.h"
#include "kernels/sm90a/prune_compress_config.h"

namespace rtlynx::sm90a {
namespace {

const std::string kName = "norm_modulate_prune_compress: ";

struct Piece {
  std::string name;
  const void* data;
  int64_t bytes;
};

/// Weight, scale and shift. Sets the number of images, 1 without any.
Status check_modulation(const NormModulateOptions& options, int64_t m, int64_t k, int64_t& images) {
  images = 0;
  if (options.weight.data != nullptr) {
    if (Status status = check_matrix(kName + "weight", options.weight, 1, k); !status.ok()) return status;
  }
  for (const auto& [name, view] : {std::pair{"scale", options.scale}, {"shift", options.shift}}) {
    if (view.data == nullptr) continue;
    if (view.rows < 1 || m % view.rows != 0 || (images != 0 && images != view.rows)) {
      return {ErrorCode::kInvalidArgument,
              kName + name + " must have one row per image, a divisor of m = " + std::to_string(m) +
                  ", and as many as the other (got " + std::to_string(view.rows) + " rows)"};
    }
    if (Status status = check_matrix(kName + name, view, view.rows, k); !status.ok()) return status;
    images = view.rows;
  }
  if (images == 0) images = 1;
  return {};
}

/// What is written must not touch what is read, nor another output.
Status check_memory(const MatrixView& x, const MutableCompressedView& out, const NormModulateOptions& options) {
  const MatrixView dense = read_only(options.dense);
  const Piece written[] = {{"out's blocks", out.blocks, compressed_bytes(out.m, out.k).value()},
                           {"out's scale", out.scale, 4 * out.m},
                           {"dense", dense.data, dense.data == nullptr ? 0 : span_bytes(dense)}};
  struct Operand {
    const char* name;
    const MatrixView& view;
  };
  for (const Piece& piece : written) {
    if (piece.data == nullptr) continue;
    for (const Operand& read : {Operand{"x", x}, Operand{"weight", options.weight}, Operand{"scale", options.scale},
                                Operand{"shift", options.shift}}) {
      if (read.view.data == nullptr) continue;
      Status status = check_apart(kName + piece.name + " and " + read.name, piece.data, piece.bytes, read.view.data,
                                  span_bytes(read.view));
      if (!status.ok()) return status;
    }
    for (const Piece& other : written) {
      if (&other == &piece || other.data == nullptr) continue;
      Status status =
          check_apart(kName + piece.name + " and " + other.name, piece.data, piece.bytes, other.data, other.bytes);
      if (!status.ok()) return status;
    }
  }
  return {};
}

}  // namespace

Result<NormModulatePlan> plan_norm_modulate(const MatrixView& x, const MutableCompressedView& out,
                                            const NormModulateOptions& options) {
  if (Status status = check_compressed(kName + "out", read_only(out)); !status.ok()) return status;
  if (Status status = check_pointer(kName + "out's scale", out.scale, 4); !status.ok()) return status;
  if (Status status = check_matrix(kName + "x", x, out.m, out.k); !status.ok()) return status;
  if (out.k > kNormMaxK) {
    return Status(ErrorCode::kUnsupported, kName + "k must be at most " + std::to_string(kNormMaxK) +
                                               " for the Hopper kernels (got " + std::to_string(out.k) + ")");
  }
  if (!std::isfinite(options.eps) || options.eps < 0) {
    return Status(ErrorCode::kInvalidArgument,
                  kName + "eps must be finite and not negative (got " + std::to_string(options.eps) + ")");
  }
  if (options.dense.data != nullptr) {
    if (Status status = check_matrix(kName + "dense", read_only(options.dense), out.m, out.k); !status.ok()) {
      return status;
    }
  }
  int64_t images = 1;
  if (Status status = check_modulation(options, out.m, out.k, images); !status.ok()) return status;
  if (Status status = check_memory(x, out, options); !status.ok()) return status;
  NormModulatePlan plan;
  plan.m = out.m;
  plan.k = out.k;
  plan.ctas = (out.m + kBlockRows - 1) / kBlockRows * (kBlockRows / kNormRows);
  plan.tokens_per_image = out.m / images;
  return plan;
}

}  // namespace rtlynx::sm90a
