#include "models/text/t5_encoder.h"

#include <fmt/core.h>

#include <cmath>
#include <limits>

#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr int64_t kMaxWidth = 1 << 17;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxTokens = 1 << 16;

/// transformers keeps an fp16 residual stream finite: infinities become the largest number less 1000.
at::Tensor clamp_half(const at::Tensor& x) {
  if (x.scalar_type() != at::kHalf) return x;
  const double largest = std::numeric_limits<at::Half>::max();
  const double bound = x.isinf().any().item<bool>() ? largest - 1000 : largest;
  return x.clamp(-bound, bound);
}

}  // namespace

T5Config T5Config::parse(const io::Config& config) {
  T5Config result;
  const auto read = [&](std::string_view key, int64_t min, int64_t max, int64_t& value) {
    value = config.integer(key, min, max, value);
  };
  read("vocab_size", 1, kMaxVocabulary, result.vocab_size);
  read("d_model", 1, kMaxWidth, result.d_model);
  read("d_kv", 1, kMaxWidth, result.d_kv);
  read("d_ff", 1, kMaxWidth, result.d_ff);
  read("num_layers", 1, kMaxLayers, result.num_layers);
  read("num_heads", 1, kMaxWidth, result.num_heads);
  // A quarter of the buckets, at least 1, is for exact distances of each sign.
  read("relative_attention_num_buckets", 4, kMaxWidth, result.relative_attention_num_buckets);
  read("relative_attention_max_distance", result.relative_attention_num_buckets / 4 + 1, kMaxVocabulary,
       result.relative_attention_max_distance);
  result.layer_norm_epsilon = config.number("layer_norm_epsilon", 0, 1, result.layer_norm_epsilon);
  constexpr std::string_view kGated = "gated-";
  const std::string projection = config.text("feed_forward_proj", "relu");
  result.is_gated = projection.starts_with(kGated);
  // T5 1.1 calls it gelu, but was trained with the tanh approximation.
  const std::string name =
      projection == "gated-gelu" ? "gelu_new" : projection.substr(result.is_gated ? kGated.size() : 0);
  result.activation = parse_activation(config, "feed_forward_proj", name);
  return result;
}

T5Encoder::T5Encoder(const io::Config& config, Weights& weights)
    : config_(T5Config::parse(config)), placement_(weights.placement()) {
  const std::string tied = "encoder.embed_tokens.weight";
  const bool has_shared = weights.has("shared.weight") || !weights.has(tied);
  embedding_ = weights.take(has_shared ? "shared.weight" : tied, {config_.vocab_size, config_.d_model});
  relative_attention_bias_ = weights.take("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                                          {config_.relative_attention_num_buckets, config_.num_heads});
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    layers_.push_back(take_layer(weights, fmt::format("encoder.block.{}.layer.", i)));
  }
  final_norm_ = weights.take("encoder.final_layer_norm.weight", {config_.d_model});
  weights.finish({tied});  // a second copy of shared.weight in some checkpoints
}

T5Encoder T5Encoder::load(const std::filesystem::path& folder, const Placement& placement) {
  const io::Config config = io::Config::read(folder / "config.json");
  Weights weights = Weights::load(folder, placement);
  return {config, weights};
}

T5Encoder::Layer T5Encoder::take_layer(Weights& weights, const std::string& name) const {
  const int64_t width = config_.d_model;
  const int64_t inner = config_.num_heads * config_.d_kv;
  const auto linear = [&](const std::string& part, int64_t k, int64_t n) {
    return DenseLinear(weights, name + part, k, n, /*has_bias=*/false);
  };
  Layer layer = {weights.take(name + "0.layer_norm.weight", {width}),
                 linear("0.SelfAttention.q", width, inner),
                 linear("0.SelfAttention.k", width, inner),
                 linear("0.SelfAttention.v", width, inner),
                 linear("0.SelfAttention.o", inner, width),
                 weights.take(name + "1.layer_norm.weight", {width}),
                 linear(config_.is_gated ? "1.DenseReluDense.wi_0" : "1.DenseReluDense.wi", width, config_.d_ff),
                 std::nullopt,
                 linear("1.DenseReluDense.wo", config_.d_ff, width)};
  if (config_.is_gated) layer.gate = linear("1.DenseReluDense.wi_1", width, config_.d_ff);
  if (placement_.dtype == at::kHalf) layer.wo.weight = layer.wo.weight.to(at::kFloat);
  return layer;
}

at::Tensor T5Encoder::normalize(const at::Tensor& weight, const at::Tensor& x) const {
  const at::Tensor variance = x.to(at::kFloat).pow(2).mean(-1, /*keepdim=*/true);
  return weight * (x * at::rsqrt(variance + config_.layer_norm_epsilon)).to(weight.scalar_type());
}

at::Tensor T5Encoder::position_bias(int64_t tokens) const {
  // Half of the buckets for each sign; of these, half for one distance each, the others for logarithmic ranges up to
  // max_distance. The logarithm is taken in fp32 on the model's device as transformers does: at the ranges' ends its
  // last bit decides.
  const int64_t per_sign = config_.relative_attention_num_buckets / 2;
  const int64_t exact = per_sign / 2;
  const at::Tensor positions = at::arange(tokens, relative_attention_bias_.options().dtype(at::kLong));
  const at::Tensor offset = positions.unsqueeze(0) - positions.unsqueeze(1);
  const at::Tensor distance = offset.abs();
  const double range =
      std::log(static_cast<double>(config_.relative_attention_max_distance) / static_cast<double>(exact));
  const at::Tensor logarithmic =
      (exact + (at::log(distance.to(at::kFloat) / exact) / range * (per_sign - exact)).to(at::kLong))
          .clamp_max(per_sign - 1);
  const at::Tensor bucket =
      offset.gt(0).to(at::kLong) * per_sign + at::where(distance.lt(exact), distance, logarithmic);
  return at::embedding(relative_attention_bias_, bucket).permute({2, 0, 1}).unsqueeze(0);
}

at::Tensor T5Encoder::attend(const Layer& layer, const at::Tensor& x, const at::Tensor& bias) const {
  const auto split_heads = [&](const at::Tensor& y) {
    return y.view({y.size(0), y.size(1), config_.num_heads, config_.d_kv}).transpose(1, 2);
  };
  // T5 does not scale its logits; the factor went into the initialisation of q.
  const at::Tensor attended =
      at::scaled_dot_product_attention(split_heads(layer.q(x)), split_heads(layer.k(x)), split_heads(layer.v(x)), bias,
                                       0.0, /*is_causal=*/false, /*scale=*/1.0);
  return layer.o(attended.transpose(1, 2).reshape({x.size(0), x.size(1), config_.num_heads * config_.d_kv}));
}

at::Tensor T5Encoder::feed_forward(const Layer& layer, const at::Tensor& x) const {
  at::Tensor hidden = activate(config_.activation, layer.wi(x));
  if (layer.gate) hidden = hidden * (*layer.gate)(x);
  return layer.wo(hidden.to(layer.wo.weight.scalar_type()));
}

at::Tensor T5Encoder::operator()(const at::Tensor& ids) const {
  check_token_ids(ids, kMaxTokens, config_.vocab_size);
  const at::Tensor bias = position_bias(ids.size(1));
  at::Tensor x = at::embedding(embedding_, ids.to(placement_.device));
  for (const Layer& layer : layers_) {
    x = clamp_half(x + attend(layer, normalize(layer.attention_norm, x), bias));
    x = clamp_half(x + feed_forward(layer, normalize(layer.feed_forward_norm, x)));
  }
  return normalize(final_norm_, x);
}

}  // namespace rtlynx::models
