#include "pipeline/latents.h"

#include <ATen/CPUGeneratorImpl.h>

namespace rtlynx::pipeline {

at::Tensor pack_latents(const at::Tensor& latents) {
  const int64_t batch = latents.size(0), channels = latents.size(1);
  const int64_t h = latents.size(2) / kPacking, w = latents.size(3) / kPacking;
  return latents.reshape({batch, channels, h, kPacking, w, kPacking})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({batch, h * w, channels * kPacking * kPacking});
}

at::Tensor unpack_latents(const at::Tensor& packed, int64_t h, int64_t w) {
  const int64_t batch = packed.size(0), channels = packed.size(2) / (kPacking * kPacking);
  return packed.reshape({batch, h, w, channels, kPacking, kPacking})
      .permute({0, 3, 1, 4, 2, 5})
      .reshape({batch, channels, h * kPacking, w * kPacking});
}

at::Tensor draw_noise(const std::vector<uint64_t>& seeds, int64_t channels, int64_t height, int64_t width,
                      at::ScalarType dtype) {
  std::vector<at::Tensor> rows;
  for (const uint64_t seed : seeds) {
    const at::Generator generator = at::detail::createCPUGenerator(seed);
    rows.push_back(at::randn({1, channels, height, width}, generator, at::TensorOptions().dtype(dtype)));
  }
  return at::cat(rows);
}

at::Tensor to_rgb8(const at::Tensor& images) {
  const at::Tensor unit = (images * 0.5 + 0.5).clamp(0, 1);
  return at::round(unit.permute({0, 2, 3, 1}).to(at::kFloat) * 255).to(at::kByte).contiguous();
}

}  // namespace rtlynx::pipeline
