#include "models/double_stream_block.h"

#include "models/modulation.h"

namespace rtlynx::models {

GeluFeedForward::GeluFeedForward(Weights& weights, const std::string& name, int64_t dim)
    : up_(weights, name + ".net.0.proj", dim, 4 * dim, true), down_(weights, name + ".net.2", 4 * dim, dim, true) {}

at::Tensor GeluFeedForward::operator()(const at::Tensor& x) const {
  return down_(at::gelu(up_(x), "tanh"));
}

void GeluFeedForward::append_linears(std::vector<Linear*>& linears) {
  linears.insert(linears.end(), {&up_, &down_});
}

DoubleStreamBlock::DoubleStreamBlock(Weights& weights, const std::string& name, const Names& names,
                                     const AttentionSettings& settings)
    : image_modulation_(weights, name + "." + names.image_modulation, settings.dim(), 6 * settings.dim()),
      text_modulation_(weights, name + "." + names.text_modulation, settings.dim(), 6 * settings.dim()),
      image_qkv_(weights, name + ".attn", kOwnQkv, settings),
      to_out_(weights, name + ".attn.to_out.0", settings.dim(), settings.dim(), settings.has_bias),
      text_qkv_(weights, name + ".attn", kAddedQkv, settings),
      to_add_out_(weights, name + ".attn.to_add_out", settings.dim(), settings.dim(), settings.has_bias),
      image_mlp_(weights, name + "." + names.image_mlp, settings.dim()),
      text_mlp_(weights, name + "." + names.text_mlp, settings.dim()) {}

void DoubleStreamBlock::operator()(at::Tensor& hidden_states, at::Tensor& encoder_hidden_states,
                                   const BlockConditioning& conditioning) const {
  // Six chunks each: shift, scale, gate of the attention, then shift, scale, gate of the MLP.
  const auto image = image_modulation_(conditioning.silu_temb).chunk(6, 1);
  const auto text = text_modulation_(conditioning.silu_temb).chunk(6, 1);
  const int64_t text_tokens = encoder_hidden_states.size(1);
  const int64_t image_tokens = hidden_states.size(1);

  const auto image_heads = image_qkv_(modulated_layer_norm(hidden_states, image[1], image[0]));
  const auto text_heads = text_qkv_(modulated_layer_norm(encoder_hidden_states, text[1], text[0]));
  const Qkv::Heads joint = {at::cat({text_heads.query, image_heads.query}, 1),
                            at::cat({text_heads.key, image_heads.key}, 1),
                            at::cat({text_heads.value, image_heads.value}, 1)};
  const at::Tensor attended = attend(joint, conditioning.rope, conditioning.mask);
  const at::Tensor to_text = attended.narrow(1, 0, text_tokens).contiguous();
  const at::Tensor to_image = attended.narrow(1, text_tokens, image_tokens).contiguous();

  hidden_states = gated_sum(hidden_states, image[2], to_out_(to_image));
  hidden_states =
      gated_sum(hidden_states, image[5], image_mlp_(modulated_layer_norm(hidden_states, image[4], image[3])));
  encoder_hidden_states = gated_sum(encoder_hidden_states, text[2], to_add_out_(to_text));
  encoder_hidden_states = gated_sum(encoder_hidden_states, text[5],
                                    text_mlp_(modulated_layer_norm(encoder_hidden_states, text[4], text[3])));
}

void DoubleStreamBlock::append_linears(std::vector<Linear*>& linears) {
  image_qkv_.append_linears(linears);
  linears.push_back(&to_out_);
  text_qkv_.append_linears(linears);
  linears.push_back(&to_add_out_);
  image_mlp_.append_linears(linears);
  text_mlp_.append_linears(linears);
}

}  // namespace rtlynx::models
