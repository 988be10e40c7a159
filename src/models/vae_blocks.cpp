#include "models/vae_blocks.h"

#include <fmt/format.h>

#include <array>

namespace rtlynx::models {
namespace {

constexpr double kNormEps = 1e-6;

}  // namespace

SameConv2d::SameConv2d(Weights& weights, const std::string& name, int64_t in, int64_t out, int64_t kernel)
    : weight(weights.take(name + ".weight", {out, in, kernel, kernel})), bias(weights.take(name + ".bias", {out})) {}

at::Tensor SameConv2d::operator()(const at::Tensor& x) const {
  const std::array<int64_t, 2> stride = {1, 1};
  const std::array<int64_t, 2> padding = {weight.size(2) / 2, weight.size(3) / 2};
  return at::conv2d(x, weight, bias, stride, padding);
}

GroupNorm::GroupNorm(Weights& weights, const std::string& name, int64_t channels, int64_t group_count)
    : weight(weights.take(name + ".weight", {channels})),
      bias(weights.take(name + ".bias", {channels})),
      groups(group_count) {}

at::Tensor GroupNorm::operator()(const at::Tensor& x) const {
  return at::group_norm(x, groups, weight, bias, kNormEps);
}

VaeResnetBlock::VaeResnetBlock(Weights& weights, const std::string& name, int64_t in, int64_t out, int64_t groups)
    : norm1_(weights, name + ".norm1", in, groups),
      conv1_(weights, name + ".conv1", in, out, 3),
      norm2_(weights, name + ".norm2", out, groups),
      conv2_(weights, name + ".conv2", out, out, 3) {
  if (in != out) conv_shortcut_.emplace(weights, name + ".conv_shortcut", in, out, 1);
}

at::Tensor VaeResnetBlock::operator()(const at::Tensor& x) const {
  const at::Tensor hidden_states = conv2_(at::silu(norm2_(conv1_(at::silu(norm1_(x))))));
  return (conv_shortcut_ ? (*conv_shortcut_)(x) : x) + hidden_states;
}

VaeAttention::VaeAttention(Weights& weights, const std::string& name, int64_t channels, int64_t groups)
    : group_norm_(weights, name + ".group_norm", channels, groups),
      to_q_(weights, name + ".to_q", channels, channels),
      to_k_(weights, name + ".to_k", channels, channels),
      to_v_(weights, name + ".to_v", channels, channels),
      to_out_(weights, name + ".to_out.0", channels, channels) {}

at::Tensor VaeAttention::operator()(const at::Tensor& x) const {
  const at::Tensor pixels = group_norm_(x.flatten(2)).transpose(1, 2);  // [B, H * W, C]
  const auto head = [&](const DenseLinear& projection) { return projection(pixels).unsqueeze(1); };
  const at::Tensor attended = at::scaled_dot_product_attention(head(to_q_), head(to_k_), head(to_v_)).squeeze(1);
  return to_out_(attended).transpose(1, 2).reshape(x.sizes()) + x;
}

VaeMidBlock::VaeMidBlock(Weights& weights, const std::string& name, int64_t channels, int64_t groups, bool attention)
    : first_(weights, name + ".resnets.0", channels, channels, groups),
      second_(weights, name + ".resnets.1", channels, channels, groups) {
  if (attention) attention_.emplace(weights, name + ".attentions.0", channels, groups);
}

at::Tensor VaeMidBlock::operator()(const at::Tensor& x) const {
  at::Tensor hidden_states = first_(x);
  if (attention_) hidden_states = (*attention_)(hidden_states);
  return second_(hidden_states);
}

VaeUpBlock::VaeUpBlock(Weights& weights, const std::string& name, int64_t in, int64_t out, int64_t resnets,
                       int64_t groups, bool upsample) {
  for (int64_t i = 0; i < resnets; ++i) {
    resnets_.emplace_back(weights, fmt::format("{}.resnets.{}", name, i), i == 0 ? in : out, out, groups);
  }
  if (upsample) upsampler_.emplace(weights, name + ".upsamplers.0.conv", out, out, 3);
}

at::Tensor VaeUpBlock::operator()(at::Tensor x) const {
  for (const auto& resnet : resnets_) x = resnet(x);
  if (!upsampler_) return x;
  const std::array<double, 2> twice = {2.0, 2.0};
  return (*upsampler_)(at::upsample_nearest2d(x, std::nullopt, twice));
}

}  // namespace rtlynx::models
