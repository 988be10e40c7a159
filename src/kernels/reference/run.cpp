#include "kernels/reference/run.h"

#include <algorithm>

#include "kernels/bf16.h"
#include "kernels/reference/reference.h"
#include "kernels/views.h"
#include "kernels/workspace.h"

namespace rtlynx::reference {
namespace {

Operands operands_of(const PackedWeight::Layout& weight, const EpilogueOptions& options) {
  return {as<const float>(weight.weight),
          as<const float>(weight.bias),
          as<const float>(weight.lora_b),
          weight.n,
          weight.k,
          options.use_lora ? weight.rank : 0};
}

/// One token's buffers in the workspace.
struct Scratch {
  float* x = nullptr;
  float* values = nullptr;
  float* lora_down = nullptr;
  float* y = nullptr;
  uint8_t* metadata = nullptr;
};

Status take_scratch(const PackedWeight::Layout& weight, Scratch& scratch) {
  const int64_t groups = (weight.k + 3) / 4;
  const int64_t sizes[] = {weight.k * 4, groups * 8, weight.rank * 4, weight.n * 4, groups};
  int64_t total = 0;
  for (const int64_t size : sizes) total += Workspace::rounded(size);
  Workspace& workspace = Workspace::of_this_thread();
  if (Status status = workspace.reserve(total); !status.ok()) return status;
  scratch.x = reinterpret_cast<float*>(workspace.take(sizes[0]));
  scratch.values = reinterpret_cast<float*>(workspace.take(sizes[1]));
  scratch.lora_down = reinterpret_cast<float*>(workspace.take(sizes[2]));
  scratch.y = reinterpret_cast<float*>(workspace.take(sizes[3]));
  scratch.metadata = reinterpret_cast<uint8_t*>(workspace.take(sizes[4]));
  return {};
}

}  // namespace

Status run_compressed(const PackedWeight::Layout& weight, const Compressed24& a, const MutableMatrixView& y,
                      const EpilogueOptions& options) {
  Scratch scratch;
  if (Status status = take_scratch(weight, scratch); !status.ok()) return status;
  for (int64_t i = 0; i < y.rows; ++i) {
    read_row({a.values.get(), a.m, a.slots(), a.slots(), a.dtype}, i, scratch.values);
    const Token token{scratch.values, as<const uint8_t>(a.metadata) + i * a.groups(),
                      options.use_scale ? as<const float>(a.scale)[i] : 1.0f,
                      as<const float>(a.lora_down) + i * a.rank};
    linear_row(operands_of(weight, options), token, scratch.y);
    write_row(y, i, scratch.y);
  }
  return {};
}

Status run_dense(const PackedWeight::Layout& weight, const PackedLoraA& lora_a, const MatrixView& x,
                 const MutableMatrixView& y, const EpilogueOptions& options) {
  Scratch scratch;
  if (Status status = take_scratch(weight, scratch); !status.ok()) return status;
  const Operands operands = operands_of(weight, options);
  for (int64_t i = 0; i < x.rows; ++i) {
    read_row(x, i, scratch.x);
    const float scale = compress_row(scratch.x, weight.k, scratch.values, scratch.metadata);
    if (operands.rank > 0) {
      lora_down_row(scratch.x, weight.k, as<const float>(lora_a.values), operands.rank, scratch.lora_down);
    }
    linear_row(operands, {scratch.values, scratch.metadata, options.use_scale ? scale : 1.0f, scratch.lora_down},
               scratch.y);
    write_row(y, i, scratch.y);
  }
  return {};
}

}  // namespace rtlynx::reference
