#include "models/flux_blocks.h"

#include "models/modulation.h"

namespace rtlynx::models {

FluxSingleTransformerBlock::FluxSingleTransformerBlock(Weights& weights, const std::string& name,
                                                       const AttentionSettings& settings)
    : norm_(weights, name + ".norm.linear", settings.dim(), 3 * settings.dim()),
      qkv_(weights, name + ".attn", kOwnQkv, settings),
      proj_mlp_(weights, name + ".proj_mlp", settings.dim(), 4 * settings.dim(), true),
      proj_out_(weights, name + ".proj_out", 5 * settings.dim(), settings.dim(), true) {}

at::Tensor FluxSingleTransformerBlock::operator()(const at::Tensor& hidden_states,
                                                  const BlockConditioning& conditioning) const {
  const auto modulation = norm_(conditioning.silu_temb).chunk(3, 1);  // shift, scale, gate
  const at::Tensor normed = modulated_layer_norm(hidden_states, modulation[1], modulation[0]);
  const at::Tensor attended = attend(qkv_(normed), conditioning.rope, conditioning.mask);
  const at::Tensor mlp = at::gelu(proj_mlp_(normed), "tanh");
  return gated_sum(hidden_states, modulation[2], proj_out_(at::cat({attended, mlp}, 2)));
}

void FluxSingleTransformerBlock::append_linears(std::vector<Linear*>& linears) {
  qkv_.append_linears(linears);
  linears.insert(linears.end(), {&proj_mlp_, &proj_out_});
}

}  // namespace rtlynx::models
