#include "kernels/sm90a/norm_modulate_config.h"

#include <cmath>
#include <string>
#include <utility>

#include "kernels/sm90a/checks.h"
#include "kernels/sm90a/prune_compress_config.h"
#include "kernels/sm90a/prune_lora_config.h"
#include "kernels/sm90a/spmm_config.h"

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
  const MatrixView dense = read_only(options.dense), t = read_only(options.lora.t);
  const Piece written[] = {{"out's blocks", out.blocks, compressed_bytes(out.m, out.k).value()},
                           {"out's scale", out.scale, 4 * out.m},
                           {"dense", dense.data, dense.data == nullptr ? 0 : span_bytes(dense)},
                           {"t", t.data, t.data == nullptr ? 0 : span_bytes(t)}};
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

/// The smallest cluster whose CTAs have room for a tile a group.
Status choose_memory(NormModulatePlan& plan) {
  const auto k_blocks = static_cast<int>(plan.k / kBlockK);
  for (const int ctas : {4, kMaxNormCluster}) {
    const int blocks = (k_blocks + ctas - 1) / ctas;
    for (int stages = kNormMaxStages; stages >= kNormLeastStages; stages /= 2) {
      const NormMemory memory = norm_memory(blocks, plan.columns, ctas, stages);
      if (memory.bytes > kSharedBytesLimit) continue;
      plan.ctas = ctas;
      plan.stages = stages;
      plan.memory = memory;
      return {};
    }
  }
  return {ErrorCode::kUnsupported, kName + "k = " + std::to_string(plan.k) + " with " + std::to_string(plan.columns) +
                                       " columns of T does not fit in shared memory; make T of the dense output"};
}

}  // namespace

NormMemory norm_memory(int blocks, int columns, int ctas, int stages) {
  NormMemory memory;
  int bytes = 0;
  const auto take = [&](int size) {
    const int at = bytes;
    bytes += (size + 127) / 128 * 128;
    return at;
  };
  constexpr int kPair = 8;
  memory.stage_bytes = blocks * kNormBlockBytes;
  memory.stages = take(stages * memory.stage_bytes);
  memory.lora_a = take(blocks * columns * kBlockK * 2);
  memory.t = take(kNormGroups * kNormRows * columns * 4);
  memory.modulation = take(blocks * (kBlockK / 16) * kNormModulationPitch);
  memory.statistics = take(kNormStatisticsSlots * ctas * kNormRows * kPair);
  memory.squares = take(kNormGroups * kNormRows * kPair);
  memory.partial = take(kNormGroups * 2 * kNormGroupWarps * kNormRows * kPair);
  memory.barriers = take(stages * 16);
  memory.statistics_barriers = take(kNormStatisticsSlots * 8);
  memory.output_barriers = take(kNormGroups * 8);
  memory.lora_barrier = take(8);
  memory.bytes = bytes;
  return memory;
}

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
  const LoraDown& lora = options.lora;
  if (lora.lora_a.data != nullptr || lora.t.data != nullptr) {
    if (Status status = check_lora_down(kName, lora, out); !status.ok()) return status;
  }
  if (Status status = check_memory(x, out, options); !status.ok()) return status;
  NormModulatePlan plan;
  plan.m = out.m;
  plan.k = out.k;
  plan.tiles = (out.m + kBlockRows - 1) / kBlockRows * (kBlockRows / kNormRows);
  plan.tokens_per_image = out.m / images;
  plan.columns = lora.t.data == nullptr ? 0 : lora_columns(lora.t.cols);
  if (Status status = choose_memory(plan); !status.ok()) return status;
  return plan;
}

}  // namespace rtlynx::sm90a
