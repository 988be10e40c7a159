#pragma once

#include <string>

namespace rtlynx::check {

/// Times the kernels beside cuBLASLt over the shapes of `shapes_path`, prints a table and appends one JSON line for
/// each shape and contestant to `results_path`. `only`: cuBLASLt and the contestants whose names begin with it.
void bench(const std::string& shapes_path, const std::string& results_path, const std::string& only);

}  // namespace rtlynx::check
