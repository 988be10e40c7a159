#include "models/z_image_blocks.h"

#include "models/modulation.h"

namespace rtlynx::models {

SwiGluFeedForward::SwiGluFeedForward(Weights& weights, const std::string& name, int64_t dim, int64_t mlp_dim)
    : w1_(weights, name + ".w1", dim, mlp_dim, false),
      w2_(weights, name + ".w2", mlp_dim, dim, false),
      w3_(weights, name + ".w3", dim, mlp_dim, false) {}

at::Tensor SwiGluFeedForward::operator()(const at::Tensor& x) const {
  const at::Tensor gate = at::silu(w1_(x));  // before w3: operands of a product may be evaluated in either order
  return w2_(gate * w3_(x));
}

void SwiGluFeedForward::append_linears(std::vector<Linear*>& linears) {
  linears.insert(linears.end(), {&w1_, &w2_, &w3_});
}

ZImageTransformerBlock::ZImageTransformerBlock(Weights& weights, const std::string& name,
                                               const ZImageBlockSettings& settings, bool modulation)
    : qkv_(weights, name + ".attention", kOwnQkv, settings.attention),
      to_out_(weights, name + ".attention.to_out.0", settings.attention.dim(), settings.attention.dim(),
              settings.attention.has_bias),
      feed_forward_(weights, name + ".feed_forward", settings.attention.dim(), settings.mlp_dim),
      attention_norm1_(weights, name + ".attention_norm1", settings.attention.dim(),
                       {settings.norm_eps, RmsRounding::kTwice}),
      attention_norm2_(weights, name + ".attention_norm2", settings.attention.dim(),
                       {settings.norm_eps, RmsRounding::kTwice}),
      ffn_norm1_(weights, name + ".ffn_norm1", settings.attention.dim(), {settings.norm_eps, RmsRounding::kTwice}),
      ffn_norm2_(weights, name + ".ffn_norm2", settings.attention.dim(), {settings.norm_eps, RmsRounding::kTwice}) {
  if (!modulation) return;
  modulation_.emplace(weights, name + ".adaLN_modulation.0", settings.adaln_dim, 4 * settings.attention.dim());
}

at::Tensor ZImageTransformerBlock::operator()(const at::Tensor& x, const Conditioning& conditioning) const {
  if (!modulation_) {
    const at::Tensor attended = x + attention_norm2_(attention(attention_norm1_(x), conditioning));
    return attended + ffn_norm2_(feed_forward_(ffn_norm1_(attended)));
  }
  // Scale and gate of the attention, then of the MLP; there are no shifts.
  const auto chunks = (*modulation_)(conditioning.adaln).chunk(4, 1);
  const auto scaled = [](const at::Tensor& normed, const at::Tensor& scale) {
    return normed * (1 + scale).unsqueeze(1);
  };
  const at::Tensor to_attention = scaled(attention_norm1_(x), chunks[0]);
  const at::Tensor attended =
      gated_sum(x, at::tanh(chunks[1]), attention_norm2_(attention(to_attention, conditioning)));
  const at::Tensor to_mlp = scaled(ffn_norm1_(attended), chunks[2]);
  return gated_sum(attended, at::tanh(chunks[3]), ffn_norm2_(feed_forward_(to_mlp)));
}

void ZImageTransformerBlock::append_linears(std::vector<Linear*>& linears) {
  qkv_.append_linears(linears);
  linears.push_back(&to_out_);
  feed_forward_.append_linears(linears);
}

}  // namespace rtlynx::models
