#include "models/flux_blocks.h"

#include "models/rope.h"

namespace rtlynx::models {
namespace {

constexpr double kNormEps = 1e-6;

constexpr FluxQkv::Names kOwnNames = {"to_q", "to_k", "to_v", "norm_q", "norm_k"};
constexpr FluxQkv::Names kAddedNames = {"add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"};

/// Attention of all tokens to all, without mask; [B, S, heads, head_dim] each -> [B, S, dim].
at::Tensor joint_attention(const FluxQkv::Heads& heads, const at::Tensor& rope) {
  const at::Tensor query = apply_rope(heads.query, rope).transpose(1, 2);
  const at::Tensor key = apply_rope(heads.key, rope).transpose(1, 2);
  const at::Tensor value = heads.value.transpose(1, 2);
  return at::scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2);
}

/// residual + gate * update, with a gate [B, dim] for all tokens of an image.
at::Tensor gated_sum(const at::Tensor& residual, const at::Tensor& gate, const at::Tensor& update) {
  return residual + gate.unsqueeze(1) * update;
}

}  // namespace

at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift) {
  const at::Tensor normed = at::layer_norm(x, {x.size(-1)}, {}, {}, kNormEps);
  return normed * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1);
}

FluxQkv::FluxQkv(Weights& weights, const std::string& attn, const Names& names, const FluxBlockSizes& sizes)
    : sizes_(sizes),
      to_q_(weights, attn + "." + names.q, sizes.dim(), sizes.dim(), true),
      to_k_(weights, attn + "." + names.k, sizes.dim(), sizes.dim(), true),
      to_v_(weights, attn + "." + names.v, sizes.dim(), sizes.dim(), true),
      norm_q_(weights.take(attn + "." + names.norm_q + ".weight", {sizes.head_dim})),
      norm_k_(weights.take(attn + "." + names.norm_k + ".weight", {sizes.head_dim})) {}

FluxQkv::Heads FluxQkv::operator()(const at::Tensor& x) const {
  const auto split = [&](const at::Tensor& y) { return y.unflatten(-1, {sizes_.heads, sizes_.head_dim}); };
  return {at::rms_norm(split(to_q_(x)), {sizes_.head_dim}, norm_q_, kNormEps),
          at::rms_norm(split(to_k_(x)), {sizes_.head_dim}, norm_k_, kNormEps), split(to_v_(x))};
}

void FluxQkv::append_linears(std::vector<Linear*>& linears) {
  linears.insert(linears.end(), {&to_q_, &to_k_, &to_v_});
}

FluxFeedForward::FluxFeedForward(Weights& weights, const std::string& name, const FluxBlockSizes& sizes)
    : up_(weights, name + ".net.0.proj", sizes.dim(), sizes.mlp_dim(), true),
      down_(weights, name + ".net.2", sizes.mlp_dim(), sizes.dim(), true) {}

at::Tensor FluxFeedForward::operator()(const at::Tensor& x) const {
  return down_(at::gelu(up_(x), "tanh"));
}

void FluxFeedForward::append_linears(std::vector<Linear*>& linears) {
  linears.insert(linears.end(), {&up_, &down_});
}

FluxTransformerBlock::FluxTransformerBlock(Weights& weights, const std::string& name, const FluxBlockSizes& sizes)
    : norm1_(weights, name + ".norm1.linear", sizes.dim(), 6 * sizes.dim()),
      norm1_context_(weights, name + ".norm1_context.linear", sizes.dim(), 6 * sizes.dim()),
      image_qkv_(weights, name + ".attn", kOwnNames, sizes),
      to_out_(weights, name + ".attn.to_out.0", sizes.dim(), sizes.dim(), true),
      text_qkv_(weights, name + ".attn", kAddedNames, sizes),
      to_add_out_(weights, name + ".attn.to_add_out", sizes.dim(), sizes.dim(), true),
      ff_(weights, name + ".ff", sizes),
      ff_context_(weights, name + ".ff_context", sizes) {}

void FluxTransformerBlock::operator()(at::Tensor& hidden_states, at::Tensor& encoder_hidden_states,
                                      const FluxConditioning& conditioning) const {
  // Six chunks each: shift, scale, gate of the attention, then shift, scale, gate of the MLP.
  const auto image = norm1_(conditioning.silu_temb).chunk(6, 1);
  const auto text = norm1_context_(conditioning.silu_temb).chunk(6, 1);
  const int64_t text_tokens = encoder_hidden_states.size(1);
  const int64_t image_tokens = hidden_states.size(1);

  const auto image_heads = image_qkv_(modulated_layer_norm(hidden_states, image[1], image[0]));
  const auto text_heads = text_qkv_(modulated_layer_norm(encoder_hidden_states, text[1], text[0]));
  const FluxQkv::Heads joint = {at::cat({text_heads.query, image_heads.query}, 1),
                                at::cat({text_heads.key, image_heads.key}, 1),
                                at::cat({text_heads.value, image_heads.value}, 1)};
  const at::Tensor attended = joint_attention(joint, conditioning.rope);
  const at::Tensor to_text = attended.narrow(1, 0, text_tokens).contiguous();
  const at::Tensor to_image = attended.narrow(1, text_tokens, image_tokens).contiguous();

  hidden_states = gated_sum(hidden_states, image[2], to_out_(to_image));
  hidden_states = gated_sum(hidden_states, image[5], ff_(modulated_layer_norm(hidden_states, image[4], image[3])));
  encoder_hidden_states = gated_sum(encoder_hidden_states, text[2], to_add_out_(to_text));
  encoder_hidden_states = gated_sum(encoder_hidden_states, text[5],
                                    ff_context_(modulated_layer_norm(encoder_hidden_states, text[4], text[3])));
}

void FluxTransformerBlock::append_linears(std::vector<Linear*>& linears) {
  image_qkv_.append_linears(linears);
  linears.push_back(&to_out_);
  text_qkv_.append_linears(linears);
  linears.push_back(&to_add_out_);
  ff_.append_linears(linears);
  ff_context_.append_linears(linears);
}

FluxSingleTransformerBlock::FluxSingleTransformerBlock(Weights& weights, const std::string& name,
                                                       const FluxBlockSizes& sizes)
    : norm_(weights, name + ".norm.linear", sizes.dim(), 3 * sizes.dim()),
      qkv_(weights, name + ".attn", kOwnNames, sizes),
      proj_mlp_(weights, name + ".proj_mlp", sizes.dim(), sizes.mlp_dim(), true),
      proj_out_(weights, name + ".proj_out", sizes.dim() + sizes.mlp_dim(), sizes.dim(), true) {}

at::Tensor FluxSingleTransformerBlock::operator()(const at::Tensor& hidden_states,
                                                  const FluxConditioning& conditioning) const {
  const auto modulation = norm_(conditioning.silu_temb).chunk(3, 1);  // shift, scale, gate
  const at::Tensor normed = modulated_layer_norm(hidden_states, modulation[1], modulation[0]);
  const at::Tensor attended = joint_attention(qkv_(normed), conditioning.rope);
  const at::Tensor mlp = at::gelu(proj_mlp_(normed), "tanh");
  return gated_sum(hidden_states, modulation[2], proj_out_(at::cat({attended, mlp}, 2)));
}

void FluxSingleTransformerBlock::append_linears(std::vector<Linear*>& linears) {
  qkv_.append_linears(linears);
  linears.insert(linears.end(), {&proj_mlp_, &proj_out_});
}

}  // namespace rtlynx::models
