#include "kernels/shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace rtlynx {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 20;

bool parse_line(const std::string& line, LinearShape& shape) {
  const std::size_t hash = line.find('#');
  std::istringstream numbers(line.substr(0, hash));
  std::string rest;
  if (!(numbers >> shape.m >> shape.n >> shape.k >> shape.count) || numbers >> rest) return false;
  if (hash != std::string::npos) shape.where = line.substr(std::min(line.size(), hash + 2));
  const int64_t sizes[] = {shape.m, shape.n, shape.k, shape.count};
  return std::all_of(std::begin(sizes), std::end(sizes), [](int64_t size) { return size >= 0 && size <= kMaxSize; });
}

}  // namespace

Result<std::vector<LinearShape>> read_shapes(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Status(ErrorCode::kNotFound, fmt::format("{}: no shape list can be read there", path));
  std::vector<LinearShape> shapes;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty() || line[0] == '#') continue;
    LinearShape shape;
    if (!parse_line(line, shape)) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("{}:{}: expected \"m n k count # where\" with sizes in 0..{} (got \"{}\")", path,
                                number, kMaxSize, line));
    }
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

}  // namespace rtlynx
