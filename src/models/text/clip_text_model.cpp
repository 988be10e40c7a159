#include "models/text/clip_text_model.h"

#include <fmt/core.h>

#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr int64_t kMaxWidth = 1 << 16;
constexpr int64_t kMaxLayers = 1024;

}  // namespace

ClipTextConfig ClipTextConfig::parse(const io::Config& config) {
  ClipTextConfig result;
  const auto read = [&](std::string_view key, int64_t max, int64_t& value) {
    value = config.integer(key, 1, max, value);
  };
  read("vocab_size", kMaxVocabulary, result.vocab_size);
  read("hidden_size", kMaxWidth, result.hidden_size);
  read("intermediate_size", kMaxWidth, result.intermediate_size);
  read("num_hidden_layers", kMaxLayers, result.num_hidden_layers);
  read("num_attention_heads", kMaxWidth, result.num_attention_heads);
  read("max_position_embeddings", kMaxWidth, result.max_position_embeddings);
  result.hidden_act = parse_activation(config, "hidden_act", config.text("hidden_act", "quick_gelu"));
  result.layer_norm_eps = config.number("layer_norm_eps", 0, 1, result.layer_norm_eps);
  result.eos_token_id = config.integer("eos_token_id", 0, kMaxVocabulary, result.eos_token_id);
  if (result.hidden_size % result.num_attention_heads != 0) {
    throw Error(ErrorCode::kBadConfig, fmt::format("{}: hidden_size {} is no multiple of num_attention_heads {}",
                                                   config.origin(), result.hidden_size, result.num_attention_heads));
  }
  return result;
}

ClipTextModel::ClipTextModel(const io::Config& config, Weights& weights)
    : config_(ClipTextConfig::parse(config)), placement_(weights.placement()) {
  const std::string prefix = weights.has("embeddings.token_embedding.weight") ? "" : "text_model.";
  const int64_t width = config_.hidden_size;
  token_embedding_ = weights.take(prefix + "embeddings.token_embedding.weight", {config_.vocab_size, width});
  position_embedding_ =
      weights.take(prefix + "embeddings.position_embedding.weight", {config_.max_position_embeddings, width});
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    layers_.push_back(take_layer(weights, fmt::format("{}encoder.layers.{}.", prefix, i)));
  }
  final_norm_ = take_norm(weights, prefix + "final_layer_norm");
  // A buffer 0, 1, 2, ... that older versions of transformers saved.
  weights.finish({prefix + "embeddings.position_ids"});
}

ClipTextModel ClipTextModel::load(const std::filesystem::path& folder, const Placement& placement) {
  const io::Config config = io::Config::read(folder / "config.json");
  Weights weights = Weights::load(folder, placement);
  return {config, weights};
}

ClipTextModel::Norm ClipTextModel::take_norm(Weights& weights, const std::string& name) const {
  return {weights.take(name + ".weight", {config_.hidden_size}), weights.take(name + ".bias", {config_.hidden_size})};
}

ClipTextModel::Layer ClipTextModel::take_layer(Weights& weights, const std::string& name) const {
  const int64_t width = config_.hidden_size;
  return {take_norm(weights, name + "layer_norm1"),
          {weights, name + "self_attn.q_proj", width, width},
          {weights, name + "self_attn.k_proj", width, width},
          {weights, name + "self_attn.v_proj", width, width},
          {weights, name + "self_attn.out_proj", width, width},
          take_norm(weights, name + "layer_norm2"),
          {weights, name + "mlp.fc1", width, config_.intermediate_size},
          {weights, name + "mlp.fc2", config_.intermediate_size, width}};
}

at::Tensor ClipTextModel::normalize(const Norm& norm, const at::Tensor& x) const {
  return at::layer_norm(x, {config_.hidden_size}, norm.weight, norm.bias, config_.layer_norm_eps);
}

at::Tensor ClipTextModel::attend(const Layer& layer, const at::Tensor& x) const {
  const int64_t heads = config_.num_attention_heads;
  const auto split_heads = [&](const at::Tensor& y) {
    return y.view({y.size(0), y.size(1), heads, config_.hidden_size / heads}).transpose(1, 2);
  };
  const at::Tensor attended = at::scaled_dot_product_attention(split_heads(layer.q(x)), split_heads(layer.k(x)),
                                                               split_heads(layer.v(x)), {}, 0.0, /*is_causal=*/true);
  return layer.out(attended.transpose(1, 2).reshape(x.sizes()));
}

at::Tensor ClipTextModel::end_positions(const at::Tensor& ids) const {
  constexpr int64_t kLargestId = 2;
  // argmax gives the first of equal values; 0 where a prompt has no end token, as in transformers.
  const at::Tensor score = config_.eos_token_id == kLargestId ? ids : ids.eq(config_.eos_token_id).to(at::kInt);
  return score.to(at::kInt).argmax(-1);
}

ClipTextOutput ClipTextModel::operator()(const at::Tensor& ids) const {
  check_token_ids(ids, config_.max_position_embeddings, config_.vocab_size);
  const at::Tensor local_ids = ids.to(placement_.device);
  at::Tensor x = at::embedding(token_embedding_, local_ids) + position_embedding_.narrow(0, 0, ids.size(1));
  for (const Layer& layer : layers_) {
    x = x + attend(layer, normalize(layer.norm1, x));
    x = x + layer.fc2(activate(config_.hidden_act, layer.fc1(normalize(layer.norm2, x))));
  }
  x = normalize(final_norm_, x);
  const at::Tensor rows = at::arange(x.size(0), local_ids.options());
  return {x, x.index({rows, end_positions(local_ids)})};
}

}  // namespace rtlynx::models
