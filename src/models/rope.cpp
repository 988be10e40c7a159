#include "models/rope.h"

namespace rtlynx::models {

RopeTables::RopeTables(std::array<int64_t, 3> axes_dims, double theta, at::ScalarType position_dtype, at::Device device)
    : axes_dims_(axes_dims), theta_(theta), position_dtype_(position_dtype), device_(device) {}

at::Tensor RopeTables::make(const TokenGrid& grid) const {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor rows = at::arange(grid.height, options).unsqueeze(1).expand({grid.height, grid.width}).reshape(-1);
  const at::Tensor cols = at::arange(grid.width, options).unsqueeze(0).expand({grid.height, grid.width}).reshape(-1);
  const std::array<at::Tensor, 3> image = {at::zeros(grid.image(), options), rows, cols};
  std::vector<at::Tensor> angles;
  for (std::size_t axis = 0; axis < image.size(); ++axis) {
    const int64_t dim = axes_dims_[axis];
    const at::Tensor position =
        at::cat({at::zeros(grid.text, options), image[axis]}).to(position_dtype_).to(at::kDouble);
    const at::Tensor exponent = at::arange(0, dim, 2, options) / dim;
    const at::Tensor frequency = at::pow(theta_, exponent).reciprocal();
    angles.push_back(at::outer(position, frequency));
  }
  const at::Tensor angle = at::cat(angles, 1);
  return at::complex(at::cos(angle).to(at::kFloat), at::sin(angle).to(at::kFloat)).to(device_);
}

const at::Tensor& RopeTables::at(const TokenGrid& grid) {
  constexpr std::size_t kMaxGrids = 8;  // a 1024x1024 grid of FLUX.1-dev takes 2.4 MB
  const std::array<int64_t, 3> key = {grid.text, grid.height, grid.width};
  const auto found = tables_.find(key);
  if (found != tables_.end()) return found->second;
  if (tables_.size() >= kMaxGrids) tables_.clear();
  return tables_.emplace(key, make(grid)).first->second;
}

at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& table) {
  const at::Tensor pairs = at::view_as_complex(x.to(at::kFloat).unflatten(-1, {-1, 2}));
  return at::view_as_real(pairs * table.unsqueeze(1)).flatten(-2).to(x.scalar_type());
}

}  // namespace rtlynx::models
