#include "models/attention.h"

#include "models/rope.h"

namespace rtlynx::models {

Qkv::Qkv(Weights& weights, const std::string& attention, const QkvNames& names, const AttentionSettings& settings)
    : heads_(settings.heads),
      head_dim_(settings.head_dim),
      to_q_(weights, attention + "." + names.q, settings.dim(), settings.dim(), settings.has_bias),
      to_k_(weights, attention + "." + names.k, settings.dim(), settings.dim(), settings.has_bias),
      to_v_(weights, attention + "." + names.v, settings.dim(), settings.dim(), settings.has_bias) {
  if (!settings.qk_norm) return;
  norm_q_.emplace(weights, attention + "." + names.norm_q, head_dim_, *settings.qk_norm);
  norm_k_.emplace(weights, attention + "." + names.norm_k, head_dim_, *settings.qk_norm);
}

Qkv::Heads Qkv::operator()(const at::Tensor& x) const {
  const auto split = [&](const Linear& linear) { return linear(x).unflatten(-1, {heads_, head_dim_}); };
  Heads result = {split(to_q_), split(to_k_), split(to_v_)};
  if (norm_q_) result.query = (*norm_q_)(result.query);
  if (norm_k_) result.key = (*norm_k_)(result.key);
  return result;
}

void Qkv::append_linears(std::vector<Linear*>& linears) {
  linears.insert(linears.end(), {&to_q_, &to_k_, &to_v_});
}

at::Tensor attend(const Qkv::Heads& heads, const at::Tensor& rope, const at::Tensor& mask) {
  const at::Tensor query = apply_rope(heads.query, rope).transpose(1, 2);
  const at::Tensor key = apply_rope(heads.key, rope).transpose(1, 2);
  const at::Tensor value = heads.value.transpose(1, 2);
  const auto optional_mask = mask.defined() ? std::optional(mask) : std::nullopt;
  return at::scaled_dot_product_attention(query, key, value, optional_mask).transpose(1, 2).flatten(2);
}

}  // namespace rtlynx::models
