#include "kernels/cpu/multiply.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/selection.h"
#include "kernels/parallel.h"
#include "kernels/views.h"
#include "kernels/workspace.h"

namespace rtlynx::cpu {
namespace {

/// Tokens that are packed and multiplied before the next ones. One panel's sums for them (512 x 128 fp32 = 256 KiB)
/// stay in L2, and each k block of a panel, once in L1, serves all of them.
constexpr int64_t kRowBlock = 512;
/// k chunk of X L_A: 256 rows of 64 columns are 64 KiB, which stay in L2 while the tokens of a strip pass.
constexpr int64_t kLoraChunk = 256;
/// Tokens that are widened or padded at once; 12 is the tallest tile of lora_down.
constexpr int64_t kStripTokens = 48;

/// Sizes of a call and the buffers shared by its threads.
struct Plan {
  const Multiply& args;
  const PackedWeight::Layout& weight;
  const SimdTable& table;
  int64_t m = 0;
  int64_t rows = 0;   ///< of a row block
  int64_t slots = 0;  ///< of a token over the whole of k
  int64_t rank = 0;   ///< 0 when the branch is not used
  int64_t lora_stride = 0;
  int threads = 1;

  std::byte* values = nullptr;
  uint16_t* offsets = nullptr;
  float* scale = nullptr;
  float* lora_down = nullptr;
  std::byte* thread_scratch = nullptr;
  int64_t sums_bytes = 0;  ///< of a thread: its panel's sums, and what the low-rank branch adds to them
  int64_t strip_bytes = 0;

  bool reads_in_place() const {
    return args.a == nullptr && args.x.dtype == DType::kF32 && weight.k == weight.k_padded;
  }
  std::byte* scratch_of(int thread) const { return thread_scratch + thread * (sums_bytes + strip_bytes); }
};

Plan make_plan(const Multiply& args) {
  const auto& weight = *args.weight;
  Plan plan{args, weight, *weight.table};
  plan.m = args.y.rows;
  const int64_t blocks = (plan.m + kRowBlock - 1) / kRowBlock;
  plan.rows = (plan.m + blocks - 1) / blocks;
  plan.slots = weight.k_padded / (plan.table.has_pairs ? 4 : 2);
  plan.rank = args.options.use_lora ? weight.rank : 0;
  plan.lora_stride = args.a != nullptr ? plan.rank : plan.rank == 0 ? 0 : args.lora_a->columns;
  plan.threads = threads_for(plan.m * weight.n * weight.k, num_threads());
  plan.sums_bytes = Workspace::rounded(plan.rows * plan.table.panel_width * 4) * (plan.rank > 0 ? 2 : 1);
  plan.strip_bytes = plan.reads_in_place() ? 0 : Workspace::rounded(kStripTokens * weight.k_padded * 4);
  return plan;
}

Status take_workspace(Plan& plan) {
  const int64_t pieces[] = {Workspace::rounded(plan.rows * plan.slots * 4),
                            Workspace::rounded(plan.rows * plan.slots * 2), Workspace::rounded(plan.rows * 4),
                            Workspace::rounded(plan.rows * plan.lora_stride * 4),
                            plan.threads * (plan.sums_bytes + plan.strip_bytes)};
  int64_t total = 0;
  for (const int64_t piece : pieces) total += piece;
  Workspace& workspace = Workspace::of_this_thread();
  if (Status status = workspace.reserve(total); !status.ok()) return status;
  plan.values = workspace.take(pieces[0]);
  plan.offsets = reinterpret_cast<uint16_t*>(workspace.take(pieces[1]));
  plan.scale = reinterpret_cast<float*>(workspace.take(pieces[2]));
  plan.lora_down = reinterpret_cast<float*>(workspace.take(pieces[3]));
  plan.thread_scratch = workspace.take(pieces[4]);
  return {};
}

/// Widens x's rows into the strip, filled up with zeros.
void fill_strip(const Plan& plan, int64_t first_row, int64_t count, float* strip) {
  const MatrixView& x = plan.args.x;
  for (int64_t i = 0; i < count; ++i, strip += plan.weight.k_padded) {
    if (x.dtype == DType::kBF16) {
      plan.table.widen(static_cast<const uint16_t*>(row_of(x, first_row + i)), x.cols, strip);
    } else {
      read_row(x, first_row + i, strip);
    }
    std::fill(strip + x.cols, strip + plan.weight.k_padded, 0.0f);
  }
}

RowSlots slots_of(const Plan& plan, int64_t row, int64_t rows) {
  return {plan.weight.k_padded, plan.weight.block_k, row, rows, plan.values, plan.offsets};
}

/// Prunes and packs the dense rows [range] of the row block that begins at `base`, and computes their X L_A.
void pack_dense(const Plan& plan, int64_t base, int64_t rows, Range range, std::byte* scratch) {
  auto* strip = reinterpret_cast<float*>(scratch + plan.sums_bytes);
  const bool in_place = plan.reads_in_place();
  for (int64_t row = range.begin; row < range.end; row += kStripTokens) {
    const int64_t count = std::min(kStripTokens, range.end - row);
    if (!in_place) fill_strip(plan, base + row, count, strip);
    const float* x = in_place ? static_cast<const float*>(row_of(plan.args.x, base + row)) : strip;
    const int64_t stride = in_place ? plan.args.x.row_stride : plan.weight.k_padded;
    for (int64_t i = 0; i < count; ++i) {
      plan.scale[row + i] = plan.table.pack_row(x + i * stride, slots_of(plan, row + i, rows));
    }
    if (plan.rank == 0) continue;
    for (int64_t k = 0; k < plan.weight.k; k += kLoraChunk) {
      plan.table.lora_down({x, stride, count, k, std::min(plan.weight.k, k + kLoraChunk),
                            as<const float>(plan.args.lora_a->values), plan.lora_stride,
                            plan.lora_down + row * plan.lora_stride});
    }
  }
}

/// Re-packs one row of a Compressed24. Its metadata is not trusted: whatever the bits, offsets stay inside the panel.
void pack_compressed_row(const Plan& plan, int64_t source, const RowSlots& to) {
  const Compressed24& a = *plan.args.a;
  const auto* metadata = as<uint8_t>(a.metadata) + source * a.groups();
  const int64_t group_slots = plan.table.has_pairs ? 1 : 2;
  const int64_t row_bytes = plan.table.panel_width * 4;
  for (int64_t g = 0; g * 4 < to.k_padded; ++g) {
    const bool is_real = g < a.groups();
    const int first = is_real ? metadata[g] & 3 : 0, second = is_real ? (metadata[g] >> 2) & 3 : 1;
    uint32_t x[2] = {};
    for (int s = 0; is_real && s < 2; ++s) {
      const int64_t slot = source * a.slots() + 2 * g + s;
      x[s] = a.dtype == DType::kF32 ? as<uint32_t>(a.values)[slot]
                                    : static_cast<uint32_t>(as<uint16_t>(a.values)[slot]) << 16;
    }
    const int64_t block = g * 4 / to.block_k, within = g - block * to.block_k / 4;
    const int64_t block_groups = std::min(to.block_k, to.k_padded - block * to.block_k) / 4;
    const int64_t slot = group_slots * (to.rows * block * (to.block_k / 4) + to.row * block_groups + within);
    auto* values = reinterpret_cast<uint32_t*>(to.values) + slot;
    if (plan.table.has_pairs) {
      const int pattern = kPatternNumber[(1u << first) | (1u << second)];
      values[0] = (x[0] >> 16) | (x[1] & 0xffff0000u);
      to.offsets[slot] = static_cast<uint16_t>((6 * within + pattern) * row_bytes);
    } else {
      values[0] = x[0];
      values[1] = x[1];
      to.offsets[slot] = static_cast<uint16_t>((4 * within + first) * row_bytes);
      to.offsets[slot + 1] = static_cast<uint16_t>((4 * within + second) * row_bytes);
    }
  }
}

void pack_compressed(const Plan& plan, int64_t base, int64_t rows, Range range) {
  const Compressed24& a = *plan.args.a;
  for (int64_t row = range.begin; row < range.end; ++row) {
    pack_compressed_row(plan, base + row, slots_of(plan, row, rows));
    plan.scale[row] = as<float>(a.scale)[base + row];
    if (plan.rank > 0) {
      std::copy_n(as<float>(a.lora_down) + (base + row) * plan.rank, plan.rank, plan.lora_down + row * plan.rank);
    }
  }
}

/// How the panel's y comes out of its sums; with a low-rank branch, `addend` is filled with it.
PanelOutput output_of(const Plan& plan, int64_t base, int64_t panel, Range range, float* addend) {
  const auto& weight = plan.weight;
  const int64_t width = plan.table.panel_width;
  const auto element = static_cast<int64_t>(size_of(plan.args.y.dtype));
  PanelOutput out;
  out.scale = plan.args.options.use_scale ? plan.scale + range.begin : nullptr;
  out.addend = as<const float>(weight.bias) + panel * width;
  out.y = static_cast<std::byte*>(row_of(plan.args.y, base + range.begin)) + panel * width * element;
  out.y_stride_bytes = plan.args.y.row_stride * element;
  out.columns = std::min(width, weight.n - panel * width);
  out.dtype = plan.args.y.dtype;
  if (plan.rank == 0) return out;
  plan.table.low_rank({plan.lora_down + range.begin * plan.lora_stride, plan.lora_stride, range.end - range.begin,
                       plan.rank, as<const float>(weight.lora_b) + panel * plan.rank * width, out.addend, addend});
  out.addend = addend;
  out.addend_stride = width;
  return out;
}

/// One panel of y for the packed tokens [range].
void multiply_panel(const Plan& plan, int64_t base, int64_t rows, int64_t panel, Range range, std::byte* scratch) {
  const auto& weight = plan.weight;
  const SimdTable& table = plan.table;
  const int64_t slots_per_strip = kStripK / (table.has_pairs ? 4 : 2);
  auto* sums = reinterpret_cast<float*>(scratch);
  const PanelOutput output = output_of(plan, base, panel, range, sums + plan.rows * table.panel_width);
  const std::byte* end = weight.weight.get() + weight.panels() * weight.panel_bytes();
  const std::byte* at = weight.weight.get() + panel * weight.panel_bytes();
  for (int64_t k = 0; k < weight.k_padded; k += weight.block_k) {
    const int64_t block_k = std::min(weight.block_k, weight.k_padded - k);
    PanelBlock block;
    block.weights = at;
    block.slots = block_k / kStripK * slots_per_strip;
    const int64_t first_slot = rows * (k / kStripK * slots_per_strip) + range.begin * block.slots;
    block.values = plan.values + first_slot * 4;
    block.offsets = plan.offsets + first_slot;
    block.tokens = range.end - range.begin;
    block.sums = sums;
    block.vectors = (output.columns + table.lanes - 1) / table.lanes;
    block.is_first = k == 0;
    block.last = k + block_k == weight.k_padded ? &output : nullptr;
    at += block_k * table.panel_width * table.bytes_per_weight;
    block.next = at < end ? at : nullptr;
    block.next_bytes = std::min(at - block.weights, end - at);
    table.panel_block(block);
  }
}

/// The (panel, token chunk) pairs of one row block, shared out panel by panel; neighbouring chunks of a panel that fall
/// to the same thread are one call.
void multiply_share(const Plan& plan, int64_t base, int64_t rows, int thread, int threads) {
  const int64_t chunks = std::clamp<int64_t>(rows / 32, 1, 16);
  const Range share = share_of(plan.weight.panels() * chunks, thread, threads);
  for (int64_t unit = share.begin; unit < share.end;) {
    const int64_t panel = unit / chunks;
    const int64_t end = std::min(share.end, (panel + 1) * chunks);
    const Range range{share_of(rows, unit % chunks, chunks).begin,
                      share_of(rows, end - 1 - panel * chunks, chunks).end};
    multiply_panel(plan, base, rows, panel, range, plan.scratch_of(thread));
    unit = end;
  }
}

}  // namespace

Status multiply(const Multiply& args) {
  if (args.y.rows == 0 || args.y.cols == 0) return {};
  Plan plan = make_plan(args);
  if (Status status = take_workspace(plan); !status.ok()) return status;
#pragma omp parallel num_threads(plan.threads)
  {
    const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
    for (int64_t base = 0; base < plan.m; base += plan.rows) {
      const int64_t rows = std::min(plan.rows, plan.m - base);
      const Range range = share_of(rows, thread, threads);
      if (args.a != nullptr) {
        pack_compressed(plan, base, rows, range);
      } else {
        pack_dense(plan, base, rows, range, plan.scratch_of(thread));
      }
#pragma omp barrier
      multiply_share(plan, base, rows, thread, threads);
#pragma omp barrier
    }
  }
  return {};
}

}  // namespace rtlynx::cpu
