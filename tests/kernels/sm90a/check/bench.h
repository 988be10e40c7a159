#pragma once

#include <string>
#include <vector>

namespace rtlynx::check {

/// Times the kernels beside cuBLASLt over the shapes of `shapes_path`, prints a table and appends one JSON line for
/// each shape and contestant to `results_path`. With `only`, just contestants whose name contains one of its strings.
void bench(const std::string& shapes_path, const std::string& results_path, const std::vector<std::string>& only);

}  // namespace rtlynx::check
