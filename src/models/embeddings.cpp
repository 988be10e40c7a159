#include "models/embeddings.h"

#include <cmath>

namespace rtlynx::models {
namespace {

constexpr double kMaxPeriod = 10000.0;

}  // namespace

at::Tensor timestep_sinusoids(const at::Tensor& timesteps, int64_t channels, double scale) {
  const int64_t half = channels / 2;
  const at::Tensor index = at::arange(0, half, timesteps.options().dtype(at::kFloat));
  const at::Tensor frequencies = at::exp(index * -std::log(kMaxPeriod) / static_cast<double>(half));
  const at::Tensor angles = (timesteps.to(at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0)) * scale;
  return at::cat({at::cos(angles), at::sin(angles)}, -1);
}

TimeTextEmbed::TimeTextEmbed(Weights& weights, const std::string& name, int64_t dim, int64_t pooled_projection_dim,
                             bool guidance_embeds)
    : timestep_embedder_(weights, name + ".timestep_embedder", kTimestepChannels, dim),
      text_embedder_(weights, name + ".text_embedder", pooled_projection_dim, dim) {
  if (guidance_embeds) guidance_embedder_.emplace(weights, name + ".guidance_embedder", kTimestepChannels, dim);
}

at::Tensor TimeTextEmbed::operator()(const at::Tensor& timestep, const std::optional<at::Tensor>& guidance,
                                     const at::Tensor& pooled) const {
  const auto sinusoids = [&](const at::Tensor& t) {
    return timestep_sinusoids(t, kTimestepChannels).to(pooled.scalar_type());
  };
  at::Tensor embedding = timestep_embedder_(sinusoids(timestep));
  if (guidance_embedder_) embedding = embedding + (*guidance_embedder_)(sinusoids(*guidance));
  return embedding + text_embedder_(pooled);
}

}  // namespace rtlynx::models
