#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace rtlynx::pipeline {

/// FLUX's transformer reads 2x2 latent pixels as one token.
constexpr int64_t kPacking = 2;

/// [B, C, 2h, 2w] -> [B, h * w, 4C]; tokens row-major, a token's channels in the order (channel, dy, dx).
at::Tensor pack_latents(const at::Tensor& latents);
/// The inverse of pack_latents for a grid of h x w tokens.
at::Tensor unpack_latents(const at::Tensor& packed, int64_t h, int64_t w);

/// Standard normal noise [seeds.size(), channels, height, width] in `dtype` on the CPU; row i comes from a CPU
/// generator with seeds[i], bit for bit torch.randn((1, channels, height, width),
/// generator=torch.Generator().manual_seed(seed)). That generator looks at the low 32 bits of a seed only.
at::Tensor draw_noise(const std::vector<uint64_t>& seeds, int64_t channels, int64_t height, int64_t width,
                      at::ScalarType dtype);

/// Images [B, 3, H, W] of about -1 to 1 in any floating type -> uint8 [B, H, W, 3]: x / 2 + 1/2 clamped to [0, 1] in
/// x's type, times 255 in fp32, rounded to the nearest (ties to even).
at::Tensor to_rgb8(const at::Tensor& images);

}  // namespace rtlynx::pipeline
