#include "rtlynx/sparse24.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/simd_table.h"
#include "kernels/lora_down.h"
#include "kernels/packed_weight.h"
#include "kernels/parallel.h"
#include "kernels/reference/reference.h"
#include "kernels/views.h"
#include "kernels/workspace.h"

namespace rtlynx {
namespace {

int64_t padded(int64_t k) {
  return (k + cpu::kStripK - 1) / cpu::kStripK * cpu::kStripK;
}

const cpu::SimdTable* table_of(Backend backend) {
  return backend == Backend::kCpu ? cpu::simd_table(simd_target(), DType::kF32) : nullptr;
}

/// Pruning touches each element about as long as ten multiplications of a product take.
int threads_of(const cpu::SimdTable* table, int64_t m, int64_t k) {
  return table == nullptr ? 1 : threads_for(m * k * 10, num_threads());
}

/// Reads a row as fp32 and fills it up with zeros to a whole number of strips.
void read_padded(const MatrixView& x, int64_t row, float* out) {
  read_row(x, row, out);
  std::fill(out + x.cols, out + padded(x.cols), 0.0f);
}

struct CompressScratch {
  float* row;
  float* values;
  uint8_t* metadata;
};

/// Compresses one token from scratch.row and stores it exactly.
void compress_token(const cpu::SimdTable* table, const CompressScratch& scratch, int64_t row, Compressed24& to) {
  float& scale = as<float>(to.scale)[row];
  scale = table != nullptr ? table->compress_row(scratch.row, padded(to.k), scratch.values, scratch.metadata)
                           : reference::compress_row(scratch.row, to.k, scratch.values, scratch.metadata);
  const auto element = static_cast<int64_t>(size_of(to.dtype));
  write_exact(to.dtype, scratch.values, to.slots(), to.values.get() + row * to.slots() * element);
  std::memcpy(as<uint8_t>(to.metadata) + row * to.groups(), scratch.metadata, static_cast<std::size_t>(to.groups()));
}

Result<Compressed24> empty_compressed(const MatrixView& x, int64_t rank) {
  Compressed24 out;
  out.m = x.rows;
  out.k = x.cols;
  out.rank = rank;
  out.dtype = x.dtype;
  const struct {
    Buffer* buffer;
    int64_t columns;
    int64_t element_bytes;
  } parts[] = {{&out.values, out.slots(), static_cast<int64_t>(size_of(x.dtype))},
               {&out.metadata, out.groups(), 1},
               {&out.scale, 1, 4},
               {&out.lora_down, rank, 4}};
  for (const auto& part : parts) {
    if (part.columns == 0 && part.buffer == &out.lora_down) continue;
    auto buffer = make_buffer("prune_compress: output", part.columns, x.rows * part.element_bytes);
    if (!buffer.ok()) return buffer.status();
    *part.buffer = std::move(buffer).value();
  }
  return out;
}

}  // namespace

Status prune(const MatrixView& x, const MutableMatrixView& out, Backend backend) {
  if (Status status = check_view("prune", "x", x, -1, -1); !status.ok()) return status;
  if (Status status = check_view("prune", "out", read_only(out), x.rows, x.cols); !status.ok()) return status;
  if (out.dtype != x.dtype) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("prune: out must be {} like x (got {})", dtype_name(x.dtype), dtype_name(out.dtype))};
  }
  const bool is_in_place = out.data == x.data && out.row_stride == x.row_stride;
  if (!is_in_place) {
    if (Status status = check_apart("prune", "x", x, "out", read_only(out)); !status.ok()) return status;
  }
  const auto* table = table_of(backend);
  const int threads = threads_of(table, x.rows, x.cols);
  const int64_t row_bytes = Workspace::rounded(padded(x.cols) * 4);
  Workspace& workspace = Workspace::of_this_thread();
  if (Status status = workspace.reserve(threads * row_bytes); !status.ok()) return status;
  std::byte* scratch = workspace.take(threads * row_bytes);
  parallel_shares(x.rows, threads, [&](int thread, int64_t begin, int64_t end) {
    auto* row = reinterpret_cast<float*>(scratch + thread * row_bytes);
    for (int64_t i = begin; i < end; ++i) {
      read_padded(x, i, row);
      if (table != nullptr) {
        table->prune_row(row, padded(x.cols), row);
      } else {
        reference::prune_row(row, x.cols, row);
      }
      write_exact(x.dtype, row, x.cols, row_of(out, i));
    }
  });
  return {};
}

Result<Compressed24> prune_compress(const MatrixView& x, const MatrixView& lora_a, Backend backend) {
  if (Status status = check_view("prune_compress", "x", x, -1, -1); !status.ok()) return status;
  const auto* table = table_of(backend);
  auto lora = pack_lora_a("prune_compress", lora_a, x.cols, table != nullptr);
  if (!lora.ok()) return lora.status();
  const int64_t rank = lora.value().rank, columns = lora.value().columns;
  auto result = empty_compressed(x, rank);
  if (!result.ok()) return result;
  Compressed24& out = result.value();

  const int threads = threads_of(table, x.rows, x.cols);
  const int64_t pieces[] = {Workspace::rounded(padded(x.cols) * 4), Workspace::rounded(padded(x.cols) * 2),
                            Workspace::rounded(padded(x.cols) / 4), Workspace::rounded(columns * 4)};
  const int64_t thread_bytes = pieces[0] + pieces[1] + pieces[2] + pieces[3];
  Workspace& workspace = Workspace::of_this_thread();
  if (Status status = workspace.reserve(threads * thread_bytes); !status.ok()) return status;
  std::byte* scratch = workspace.take(threads * thread_bytes);
  parallel_shares(x.rows, threads, [&](int thread, int64_t begin, int64_t end) {
    std::byte* own = scratch + thread * thread_bytes;
    const CompressScratch token{reinterpret_cast<float*>(own), reinterpret_cast<float*>(own + pieces[0]),
                                reinterpret_cast<uint8_t*>(own + pieces[0] + pieces[1])};
    auto* down = reinterpret_cast<float*>(own + pieces[0] + pieces[1] + pieces[2]);
    for (int64_t i = begin; i < end; ++i) {
      read_padded(x, i, token.row);
      compress_token(table, token, i, out);
      if (rank == 0) continue;
      const auto* a = as<const float>(lora.value().values);
      if (table != nullptr) {
        table->lora_down({token.row, 0, 1, 0, x.cols, a, columns, down});
      } else {
        reference::lora_down_row(token.row, x.cols, a, rank, down);
      }
      std::copy_n(down, rank, as<float>(out.lora_down) + i * rank);
    }
  });
  return result;
}

Status decompress(const Compressed24& a, const MutableMatrixView& out) {
  if (Status status = check_view("decompress", "out", read_only(out), a.m, a.k); !status.ok()) return status;
  if (out.dtype != a.dtype) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("decompress: out must be {} like a (got {})", dtype_name(a.dtype), dtype_name(out.dtype))};
  }
  if (a.m == 0 || a.k == 0) return {};
  if (a.values == nullptr || a.metadata == nullptr) {
    return {ErrorCode::kInvalidArgument, "decompress: a has no values or no metadata"};
  }
  const auto element = static_cast<int64_t>(size_of(a.dtype));
  for (int64_t i = 0; i < a.m; ++i) {
    const std::byte* values = a.values.get() + i * a.slots() * element;
    auto* row = static_cast<std::byte*>(row_of(out, i));
    std::memset(row, 0, static_cast<std::size_t>(a.k * element));
    for (int64_t g = 0; g < a.groups(); ++g) {
      const int indices = as<uint8_t>(a.metadata)[i * a.groups() + g];
      const int64_t kept[2] = {indices & 3, indices >> 2};
      if (kept[0] >= kept[1] || kept[1] > 3) {
        return {ErrorCode::kInvalidArgument,
                fmt::format("decompress: metadata of row {}, group {} must hold two rising indices (got 0x{:02x})", i,
                            g, indices)};
      }
      for (int s = 0; s < 2; ++s) {
        if (4 * g + kept[s] >= a.k) continue;
        std::memcpy(row + (4 * g + kept[s]) * element, values + (2 * g + s) * element,
                    static_cast<std::size_t>(element));
      }
    }
  }
  return {};
}

}  // namespace rtlynx
