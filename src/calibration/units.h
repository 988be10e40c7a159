#pragma once

#include <cstdint>
#include <string>

#include "calibration/statistics.h"
#include "io/adapter.h"
#include "linear/tensor_file.h"

namespace rtlynx::calibration {

/// The units that a run saves, as files; every number comes back bit by bit.

/// Sums after `chunks` chunks of prompts.
TensorFile sums_to_file(const Sums& sums, int64_t chunks);

/// Fills `sums` (of the right shapes, on their devices) and returns the number of chunks in them. `origin` names the
/// file; Error(kOtherRun) where it does not fit.
int64_t sums_from_file(const TensorFile& file, const std::string& origin, Sums& sums);

/// One solved linear.
TensorFile solved_to_file(const io::AdapterLinear& solved, int64_t rank);
/// Error(kOtherRun) where the file is not one of a linear of that name.
io::AdapterLinear solved_from_file(const TensorFile& file, const std::string& origin, const std::string& name);

/// The bytes of a tensor as an adapter holds them: bf16, row-major.
std::vector<std::byte> bf16_bytes(const at::Tensor& tensor);
/// The reverse: [rows, cols] bf16 on the CPU. `bytes` must be rows * cols * 2 long.
at::Tensor bf16_tensor(const std::vector<std::byte>& bytes, int64_t rows, int64_t cols);

}  // namespace rtlynx::calibration
