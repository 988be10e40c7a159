#include <cstring>
#include <string>

#include "kernels/sm90a/checks.h"
#include "kernels/sm90a/layout.h"
#include "rtlynx/sm90a.h"

namespace rtlynx::sm90a {

Status decompress_on_host(const void* blocks, const MutableMatrixView& out) {
  const Result<int64_t> bytes = compressed_bytes(out.rows, out.cols);
  if (!bytes.ok()) return bytes.status();
  if (blocks == nullptr)
    return {ErrorCode::kInvalidArgument, "decompress_on_host: blocks must be host memory (got null)"};
  if (out.data == nullptr || out.dtype != DType::kBF16 || out.row_stride < out.cols) {
    return {ErrorCode::kInvalidArgument,
            "decompress_on_host: out must be BF16 host memory with row_stride >= cols (got " +
                std::string(dtype_name(out.dtype)) + ", row_stride " + std::to_string(out.row_stride) + ")"};
  }
  const auto* base = static_cast<const unsigned char*>(blocks);
  for (int64_t row = 0; row < out.rows; ++row) {
    auto* target = static_cast<uint16_t*>(out.data) + row * out.row_stride;
    std::memset(target, 0, static_cast<std::size_t>(out.cols) * 2);
    for (int64_t group = 0; group < out.cols / 4; ++group) {
      const unsigned char* block = base + block_offset(row / kBlockRows, group / 16, out.cols / kBlockK);
      const int in_block = static_cast<int>(row % kBlockRows), quarter = static_cast<int>(group / 4 % 4);
      uint16_t values[2], nibbles = 0;
      std::memcpy(values, block + value_offset(in_block, quarter) + group % 4 * 4, 4);
      std::memcpy(&nibbles, block + metadata_offset(in_block, quarter), 2);
      const int first = nibbles >> (group % 4 * 4) & 3, second = nibbles >> (group % 4 * 4 + 2) & 3;
      if (first >= second) {
        return {ErrorCode::kInvalidArgument, "decompress_on_host: indices of a group must rise (got " +
                                                 std::to_string(first) + ", " + std::to_string(second) + " in row " +
                                                 std::to_string(row) + " at k " + std::to_string(4 * group) + ")"};
      }
      target[4 * group + first] = values[0];
      target[4 * group + second] = values[1];
    }
  }
  return {};
}

}  // namespace rtlynx::sm90a
