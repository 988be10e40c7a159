#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rtlynx/status.h"

namespace rtlynx {

/// One line of a shape list: "m n k count # where it occurs".
struct LinearShape {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t count = 1;  ///< how often one denoising step runs it
  std::string where;
};

/// Reads a list such as shapes/flux.txt; lines that begin with '#' and empty lines are skipped. Sizes are at most 2^20.
/// Errors: kNotFound; kInvalidArgument with the line's number.
Result<std::vector<LinearShape>> read_shapes(const std::string& path);

}  // namespace rtlynx
