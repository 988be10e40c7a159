#include "models/rope.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

/// The angles of one axis, fp64 or fp32 [tokens, dim / 2]; `position` is fp64 [tokens].
at::Tensor axis_angles(const at::Tensor& position, int64_t dim, const RopeSettings& settings) {
  const at::ScalarType dtype = settings.angles == RopeAngles::kFloat ? at::kFloat : at::kDouble;
  const at::Tensor exponent = at::arange(0, dim, 2, at::TensorOptions().dtype(dtype)) / dim;
  return at::outer(position.to(dtype), at::pow(settings.theta, exponent).reciprocal());
}

}  // namespace

std::array<int64_t, 3> parse_rope_axes(const io::Config& config, const std::string& key,
                                       const std::array<int64_t, 3>& otherwise, int64_t head_dim) {
  std::array<int64_t, 3> axes = otherwise;
  if (config.has(key)) {
    const auto values = config.integers(key, 0, head_dim, axes.size());
    if (values.size() != axes.size()) {
      throw Error(ErrorCode::kBadConfig,
                  fmt::format("{}: {} has {} values, expected {}", config.origin(), key, values.size(), axes.size()));
    }
    std::copy(values.begin(), values.end(), axes.begin());
  }
  const bool even = std::all_of(axes.begin(), axes.end(), [](int64_t dim) { return dim % 2 == 0; });
  if (!even || std::accumulate(axes.begin(), axes.end(), int64_t{0}) != head_dim) {
    throw Error(ErrorCode::kBadConfig,
                fmt::format("{}: {} is [{}], expected even numbers that add up to a head's channels, {}",
                            config.origin(), key, fmt::join(axes, ", "), head_dim));
  }
  return axes;
}

at::Tensor grid_positions(double frame, int64_t first_row, int64_t height, int64_t first_col, int64_t width) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor rows = at::arange(first_row, first_row + height, options).unsqueeze(1).expand({height, width});
  const at::Tensor cols = at::arange(first_col, first_col + width, options).unsqueeze(0).expand({height, width});
  return at::stack({at::full({height, width}, frame, options), rows, cols}, 2).flatten(0, 1);
}

RopeTables::RopeTables(const RopeSettings& settings, Positions positions, at::Device device)
    : settings_(settings), positions_(std::move(positions)), device_(device) {}

at::Tensor RopeTables::make(const TokenGrid& grid) const {
  const at::Tensor positions = positions_(grid);
  std::vector<at::Tensor> axes;
  for (std::size_t axis = 0; axis < settings_.axes_dims.size(); ++axis) {
    const at::Tensor position = positions.select(1, static_cast<int64_t>(axis));
    axes.push_back(axis_angles(position, settings_.axes_dims[axis], settings_));
  }
  const at::Tensor angle = at::cat(axes, 1);
  if (settings_.angles == RopeAngles::kDouble) {
    return at::complex(at::cos(angle).to(at::kFloat), at::sin(angle).to(at::kFloat)).to(device_);
  }
  const at::Tensor rounded = angle.to(at::kFloat);
  return at::polar(at::ones_like(rounded), rounded).to(device_);
}

at::Tensor RopeTables::at(const TokenGrid& grid) {
  constexpr std::size_t kMaxGrids = 8;  // a 1024x1024 grid of FLUX.1-dev takes 2.4 MB
  const std::array<int64_t, 3> key = {grid.text, grid.height, grid.width};
  const auto found = tables_.find(key);
  if (found != tables_.end()) return found->second;
  if (tables_.size() >= kMaxGrids) tables_.clear();
  return tables_.emplace(key, make(grid)).first->second;
}

at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& table) {
  const at::Tensor pairs = at::view_as_complex(x.to(at::kFloat).unflatten(-1, {-1, 2}));
  return at::view_as_real(pairs * table.unsqueeze(-2)).flatten(-2).to(x.scalar_type());
}

}  // namespace rtlynx::models
