#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>

#include "linear/weights.h"
#include "models/dense_linear.h"

namespace rtlynx::models {

/// Sinusoids of `timesteps` [B]: fp32 [B, channels], cosines first, frequencies 10000^(-i / (channels / 2))
/// (diffusers' Timesteps with flip_sin_to_cos and downscale_freq_shift 0). The angles are multiplied by `scale` last.
at::Tensor timestep_sinusoids(const at::Tensor& timesteps, int64_t channels, double scale = 1.0);

/// How many sinusoids every model here takes of a timestep.
inline constexpr int64_t kTimestepChannels = 256;

/// Linear, SiLU, Linear: diffusers' TimestepEmbedding and PixArtAlphaTextProjection.
struct EmbedderMlp {
  DenseLinear linear_1;
  DenseLinear linear_2;

  EmbedderMlp(Weights& weights, const std::string& name, int64_t in, int64_t out)
      : EmbedderMlp(weights, name + ".linear_1", name + ".linear_2", in, out, out) {}
  EmbedderMlp(Weights& weights, const std::string& first, const std::string& second, int64_t in, int64_t mid,
              int64_t out)
      : linear_1(weights, first, in, mid), linear_2(weights, second, mid, out) {}
  at::Tensor operator()(const at::Tensor& x) const { return linear_2(at::silu(linear_1(x))); }
};

/// FLUX's conditioning vector: MLP(sin(t)) + MLP(sin(guidance)) + MLP(pooled text).
class TimeTextEmbed {
 public:
  TimeTextEmbed(Weights& weights, const std::string& name, int64_t dim, int64_t pooled_projection_dim,
                bool guidance_embeds);

  /// `timestep` and `guidance` [B] are already multiplied by 1000; `pooled` [B, pooled_projection_dim] sets the dtype
  /// of the result [B, dim]. `guidance` is given exactly where the model embeds it.
  at::Tensor operator()(const at::Tensor& timestep, const std::optional<at::Tensor>& guidance,
                        const at::Tensor& pooled) const;

 private:
  EmbedderMlp timestep_embedder_;
  std::optional<EmbedderMlp> guidance_embedder_;
  EmbedderMlp text_embedder_;
};

}  // namespace rtlynx::models
