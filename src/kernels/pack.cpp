#include <fmt/format.h>

#include <algorithm>

#include "core/alloc.h"
#include "core/checked.h"
#include "kernels/lora_down.h"
#include "kernels/packed_weight.h"
#include "kernels/parallel.h"
#include "kernels/views.h"
#include "kernels/workspace.h"

namespace rtlynx {
namespace {

/// Row r of a pair block's group holds (w[i], w[j]) for the r-th of these.
constexpr int kPatterns[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};

/// Scatters k_count elements of one row of W, as fp32, to column `column` of a panel, from row k_begin on.
void scatter(const cpu::SimdTable& table, const float* w, int64_t k_begin, int64_t k_count, int64_t column,
             std::byte* panel) {
  if (!table.has_pairs) {
    auto* to = reinterpret_cast<float*>(panel) + k_begin * table.panel_width + column;
    for (int64_t k = 0; k < k_count; ++k) to[k * table.panel_width] = w[k];
    return;
  }
  auto* to = reinterpret_cast<uint32_t*>(panel) + k_begin / 4 * 6 * table.panel_width + column;
  for (int64_t k = 0; k < k_count; k += 4) {
    for (int r = 0; r < 6; ++r, to += table.panel_width) {
      uint16_t pair[2];
      write_exact(DType::kBF16, w + k + kPatterns[r][0], 1, &pair[0]);
      write_exact(DType::kBF16, w + k + kPatterns[r][1], 1, &pair[1]);
      *to = static_cast<uint32_t>(pair[0]) | (static_cast<uint32_t>(pair[1]) << 16);
    }
  }
}

Status pack_panels(const MatrixView& weight, PackedWeight::Layout& layout) {
  const auto& table = *layout.table;
  const int threads = threads_for(layout.n * layout.k * 4, num_threads());
  const int64_t row_bytes = Workspace::rounded(layout.k_padded * 4);
  Workspace& workspace = Workspace::of_this_thread();
  if (Status status = workspace.reserve(threads * row_bytes); !status.ok()) return status;
  std::byte* scratch = workspace.take(threads * row_bytes);
  parallel_shares(layout.panels(), threads, [&](int thread, int64_t begin, int64_t end) {
    auto* row = reinterpret_cast<float*>(scratch + thread * row_bytes);
    for (int64_t panel = begin; panel < end; ++panel) {
      std::byte* to = layout.weight.get() + panel * layout.panel_bytes();
      for (int64_t column = 0; column < table.panel_width; ++column) {
        const int64_t j = panel * table.panel_width + column;
        std::fill_n(row, layout.k_padded, 0.0f);
        if (j < layout.n) read_row(weight, j, row);
        scatter(table, row, 0, layout.k_padded, column, to);
      }
    }
  });
  return {};
}

/// fp32 rows [rows, n] cut into panels: [panel][row][panel_width], zero-filled; all zeros without data.
Result<Buffer> pack_rows(std::string_view what, const MatrixView& view, int64_t rows,
                         const PackedWeight::Layout& layout) {
  const int64_t width = layout.table == nullptr ? std::max<int64_t>(1, layout.n) : layout.table->panel_width;
  const int64_t panels = (layout.n + width - 1) / width;
  auto buffer = make_buffer(what, panels * width, rows * 4);
  auto row = make_buffer(what, std::max<int64_t>(1, layout.n), 4);
  if (!buffer.ok()) return buffer;
  if (!row.ok()) return row;
  auto* to = as<float>(buffer.value());
  std::fill_n(to, panels * width * rows, 0.0f);
  for (int64_t i = 0; i < rows && view.data != nullptr; ++i) {
    auto* values = as<float>(row.value());
    read_row(view, i, values);
    for (int64_t j = 0; j < layout.n; ++j) to[(j / width * rows + i) * width + j % width] = values[j];
  }
  return buffer;
}

Status check_views(const WeightViews& views) {
  const int64_t n = views.weight.rows;
  if (Status status = check_view("pack", "weight", views.weight, -1, -1); !status.ok()) return status;
  if (views.bias.data != nullptr) {
    if (Status status = check_view("pack", "bias", views.bias, 1, n); !status.ok()) return status;
  }
  if (views.lora_b.data == nullptr) return {};
  if (Status status = check_view("pack", "lora_b", views.lora_b, -1, n); !status.ok()) return status;
  if (views.lora_b.rows < 1 || views.lora_b.rows > kMaxRank) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("pack: lora_b must have a rank in 1..{} (got {})", kMaxRank, views.lora_b.rows)};
  }
  return {};
}

Result<Buffer> pack_weight(const MatrixView& weight, PackedWeight::Layout& layout) {
  if (layout.table == nullptr) {
    auto buffer = make_buffer("pack: weight", layout.n, layout.k * 4);
    if (!buffer.ok()) return buffer;
    for (int64_t j = 0; j < layout.n; ++j) read_row(weight, j, as<float>(buffer.value()) + j * layout.k);
    layout.bytes = static_cast<std::size_t>(layout.n * layout.k * 4);
    return buffer;
  }
  auto buffer = make_buffer("pack: weight", layout.panels(), layout.panel_bytes());
  if (!buffer.ok()) return buffer;
  layout.bytes = static_cast<std::size_t>(layout.panels() * layout.panel_bytes());
  return buffer;
}

}  // namespace

Result<Buffer> make_buffer(std::string_view what, int64_t count, int64_t element_bytes) {
  const auto bytes = checked_mul<int64_t>(count, element_bytes);
  if (!bytes)
    return Status(ErrorCode::kOverflow, fmt::format("{} of {} x {} bytes is too large", what, count, element_bytes));
  Buffer buffer(static_cast<std::byte*>(allocate(static_cast<std::size_t>(*bytes))));
  if (buffer == nullptr) {
    return Status(ErrorCode::kOutOfMemory, fmt::format("{}: {} bytes could not be allocated", what, *bytes));
  }
  return buffer;
}

Result<PackedWeight> PackedWeight::pack(const WeightViews& views, Backend backend) {
  if (Status status = check_views(views); !status.ok()) return status;
  auto layout = std::make_unique<Layout>();
  layout->backend = backend;
  layout->dtype = views.weight.dtype;
  layout->n = views.weight.rows;
  layout->k = views.weight.cols;
  if (backend == Backend::kCpu) layout->table = cpu::simd_table(simd_target(), layout->dtype);
  if (layout->table != nullptr) {
    // At least one strip: with k = 0 its zeros are what sums start from.
    layout->k_padded = std::max(cpu::kStripK, checked_round_up<int64_t>(layout->k, cpu::kStripK).value_or(0));
    layout->block_k = layout->table->block_k();
  }
  auto weight = pack_weight(views.weight, *layout);
  if (!weight.ok()) return weight.status();
  layout->weight = std::move(weight).value();
  if (layout->table != nullptr) {
    if (Status status = pack_panels(views.weight, *layout); !status.ok()) return status;
  }
  layout->has_bias = views.bias.data != nullptr;
  auto bias = pack_rows("pack: bias", views.bias, 1, *layout);
  if (!bias.ok()) return bias.status();
  layout->bias = std::move(bias).value();
  if (views.lora_b.data != nullptr) {
    auto lora_b = pack_rows("pack: lora_b", views.lora_b, views.lora_b.rows, *layout);
    if (!lora_b.ok()) return lora_b.status();
    layout->lora_b = std::move(lora_b).value();
    layout->rank = views.lora_b.rows;
  }
  return PackedWeight(std::move(layout));
}

Result<PackedLoraA> pack_lora_a(std::string_view operation, const MatrixView& lora_a, int64_t k, bool is_padded) {
  PackedLoraA packed;
  if (lora_a.data == nullptr) return packed;
  if (Status status = check_view(operation, "lora_a", lora_a, k, -1); !status.ok()) return status;
  if (lora_a.cols < 1 || lora_a.cols > kMaxRank) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{}: lora_a must have a rank in 1..{} (got {})", operation, kMaxRank, lora_a.cols));
  }
  packed.rank = lora_a.cols;
  packed.columns = is_padded ? (packed.rank + cpu::kStripK - 1) / cpu::kStripK * cpu::kStripK : packed.rank;
  auto values = make_buffer(fmt::format("{}: lora_a", operation), k, packed.columns * 4);
  if (!values.ok()) return values.status();
  packed.values = std::move(values).value();
  for (int64_t i = 0; i < k; ++i) {
    auto* row = as<float>(packed.values) + i * packed.columns;
    read_row(lora_a, i, row);
    std::fill(row + packed.rank, row + packed.columns, 0.0f);
  }
  return packed;
}

}  // namespace rtlynx
