#include "models/text/qwen_text_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr int64_t kMaxWidth = 1 << 17;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxTokens = 1 << 16;

/// Where checkpoints keep the language model: transformers' older and newer names of Qwen2.5-VL, Qwen3ForCausalLM, and
/// the bare model.
constexpr std::array<std::string_view, 3> kPrefixes = {"model.language_model.", "model.", ""};

[[noreturn]] void refuse(ErrorCode code, const io::Config& config, const std::string& problem) {
  throw Error(code, fmt::format("{}: {}", config.origin(), problem));
}

io::Config section(const io::Config& config, const char* key) {
  return {config.json().at(key), config.origin() + ": " + key};
}

/// Qwen2.5-VL says "mrope" where it means its own default; everything else stretches the rotary embedding.
double read_rope_theta(const io::Config& config, double otherwise) {
  double theta = config.number("rope_theta", 1, 1e12, otherwise);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!config.has(key)) continue;
    const io::Config rope = section(config, key);
    theta = rope.number("rope_theta", 1, 1e12, theta);
    const std::string type = rope.text("rope_type", rope.text("type", "default"));
    if (type != "default" && type != "mrope") {
      refuse(ErrorCode::kUnsupported, rope, fmt::format("rotary embedding of type {}", io::quote(type)));
    }
  }
  return theta;
}

void refuse_sliding_windows(const io::Config& config) {
  if (config.boolean("use_sliding_window", false)) {
    refuse(ErrorCode::kUnsupported, config, "use_sliding_window is set");
  }
  if (!config.has("layer_types")) return;
  for (const std::string& type : config.texts("layer_types", kMaxLayers)) {
    if (type != "full_attention") {
      refuse(ErrorCode::kUnsupported, config, fmt::format("a layer of type {}", io::quote(type)));
    }
  }
}

/// The defaults of transformers' Qwen3Config and Qwen2_5_VLTextConfig.
QwenTextConfig qwen3_defaults() {
  QwenTextConfig result;
  result.vocab_size = 151936;
  result.hidden_size = 4096;
  result.intermediate_size = 22016;
  result.num_hidden_layers = 32;
  result.num_attention_heads = 32;
  result.num_key_value_heads = 32;
  result.head_dim = 128;
  result.rms_norm_eps = 1e-6;
  result.rope_theta = 1e4;
  result.qk_norm = true;
  return result;
}

QwenTextConfig qwen2_5_vl_defaults() {
  QwenTextConfig result;
  result.vocab_size = 152064;
  result.hidden_size = 8192;
  result.intermediate_size = 29568;
  result.num_hidden_layers = 80;
  result.num_attention_heads = 64;
  result.num_key_value_heads = 8;
  result.rms_norm_eps = 1e-5;
  result.rope_theta = 1e6;
  result.qkv_bias = true;
  return result;
}

void read_sizes(const io::Config& config, QwenTextConfig& result) {
  const auto read = [&](std::string_view key, int64_t max, int64_t& value) {
    value = config.integer(key, 1, max, value);
  };
  read("vocab_size", kMaxVocabulary, result.vocab_size);
  read("hidden_size", kMaxWidth, result.hidden_size);
  read("intermediate_size", kMaxWidth, result.intermediate_size);
  read("num_hidden_layers", kMaxLayers, result.num_hidden_layers);
  read("num_attention_heads", kMaxWidth, result.num_attention_heads);
  // null, unlike a missing key, stands for one a head.
  if (config.json().contains("num_key_value_heads")) result.num_key_value_heads = result.num_attention_heads;
  read("num_key_value_heads", kMaxWidth, result.num_key_value_heads);
  if (result.num_attention_heads % result.num_key_value_heads != 0) {
    refuse(ErrorCode::kBadConfig, config,
           fmt::format("num_attention_heads {} is no multiple of num_key_value_heads {}", result.num_attention_heads,
                       result.num_key_value_heads));
  }
}

/// Qwen2.5-VL's heads divide hidden_size, Qwen3's are as wide as the config says.
void read_head_dim(const io::Config& config, QwenTextConfig& result) {
  if (result.qk_norm) {
    result.head_dim = config.integer("head_dim", 2, kMaxWidth, result.head_dim);
  } else if (result.hidden_size % result.num_attention_heads == 0) {
    result.head_dim = result.hidden_size / result.num_attention_heads;
  } else {
    refuse(ErrorCode::kBadConfig, config,
           fmt::format("hidden_size {} is no multiple of num_attention_heads {}", result.hidden_size,
                       result.num_attention_heads));
  }
  if (result.head_dim % 2 != 0) {
    refuse(ErrorCode::kBadConfig, config,
           fmt::format("heads of {} channels; expected an even number", result.head_dim));
  }
}

/// What a checkpoint may hold beyond the model.
std::vector<std::string> left_names(const QwenTextConfig& config, HiddenState hidden_state) {
  std::vector<std::string> names = {"lm_head.weight", "visual.", "model.visual."};
  if (hidden_state != HiddenState::kSecondToLast) return names;
  for (const std::string_view prefix : kPrefixes) {
    names.push_back(fmt::format("{}layers.{}.", prefix, config.num_hidden_layers - 1));
    names.push_back(fmt::format("{}norm.weight", prefix));
  }
  return names;
}

/// transformers rounds twice in bf16; with one rounding the result is a little nearer to fp32's.
RmsNormKind norm_kind(const QwenTextConfig& config) {
  return {config.rms_norm_eps, RmsRounding::kOnce};
}

/// Turns the pairs of channels (i, i + head_dim / 2) of x [batch, tokens, heads, head_dim] in fp32, and puts the heads
/// before the tokens.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto halves = x.transpose(1, 2).to(at::kFloat).chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1).to(x.scalar_type());
}

QwenTextConfig parse_decoder(const io::Config& config, QwenTextConfig result) {
  read_sizes(config, result);
  read_head_dim(config, result);
  result.hidden_act = parse_activation(config, "hidden_act", config.text("hidden_act", "silu"));
  result.rms_norm_eps = config.number("rms_norm_eps", 0, 1, result.rms_norm_eps);
  result.rope_theta = read_rope_theta(config, result.rope_theta);
  refuse_sliding_windows(config);
  return result;
}

}  // namespace

QwenTextConfig QwenTextConfig::parse(const io::Config& config) {
  const std::string type = config.text("model_type");
  if (type == "qwen3") {
    QwenTextConfig result = qwen3_defaults();
    result.qkv_bias = result.out_bias = config.boolean("attention_bias", false);
    return parse_decoder(config, result);
  }
  if (type != "qwen2_5_vl" && type != "qwen2_5_vl_text") {
    refuse(ErrorCode::kUnknownClass, config,
           fmt::format("model_type {}; expected qwen3 or qwen2_5_vl", io::quote(type)));
  }
  const bool is_nested = config.has("text_config");
  return parse_decoder(is_nested ? section(config, "text_config") : config, qwen2_5_vl_defaults());
}

QwenTextModel::QwenTextModel(const io::Config& config, Weights& weights, HiddenState hidden_state)
    : config_(QwenTextConfig::parse(config)), placement_(weights.placement()) {
  const auto found = std::find_if(kPrefixes.begin(), kPrefixes.end(), [&](std::string_view prefix) {
    return weights.has(fmt::format("{}embed_tokens.weight", prefix));
  });
  const std::string prefix(found == kPrefixes.end() ? "model." : *found);
  embedding_ = weights.take(prefix + "embed_tokens.weight", {config_.vocab_size, config_.hidden_size});
  const bool is_last = hidden_state == HiddenState::kLast;
  const int64_t layers = config_.num_hidden_layers - (is_last ? 0 : 1);
  for (int64_t i = 0; i < layers; ++i) layers_.push_back(take_layer(weights, fmt::format("{}layers.{}.", prefix, i)));
  if (is_last) final_norm_.emplace(weights, prefix + "norm", config_.hidden_size, norm_kind(config_));
  weights.finish(left_names(config_, hidden_state));
}

QwenTextModel QwenTextModel::load(const std::filesystem::path& folder, const Placement& placement,
                                  HiddenState hidden_state) {
  const io::Config config = io::Config::read(folder / "config.json");
  Weights weights = Weights::load(folder, placement, left_names(QwenTextConfig::parse(config), hidden_state));
  return {config, weights, hidden_state};
}

QwenTextModel::Layer QwenTextModel::take_layer(Weights& weights, const std::string& name) const {
  const int64_t width = config_.hidden_size;
  const int64_t queries = config_.num_attention_heads * config_.head_dim;
  const int64_t keys = config_.num_key_value_heads * config_.head_dim;
  const RmsNormKind norm = norm_kind(config_);
  const auto take_head_norm = [&](const char* part) {
    return config_.qk_norm ? std::optional<RmsNorm>(std::in_place, weights, name + part, config_.head_dim, norm)
                           : std::nullopt;
  };
  return {{weights, name + "input_layernorm", width, norm},
          {weights, name + "self_attn.q_proj", width, queries, config_.qkv_bias},
          {weights, name + "self_attn.k_proj", width, keys, config_.qkv_bias},
          {weights, name + "self_attn.v_proj", width, keys, config_.qkv_bias},
          {weights, name + "self_attn.o_proj", queries, width, config_.out_bias},
          take_head_norm("self_attn.q_norm"),
          take_head_norm("self_attn.k_norm"),
          {weights, name + "post_attention_layernorm", width, norm},
          {weights, name + "mlp.gate_proj", width, config_.intermediate_size, false},
          {weights, name + "mlp.up_proj", width, config_.intermediate_size, false},
          {weights, name + "mlp.down_proj", config_.intermediate_size, width, false}};
}

std::pair<at::Tensor, at::Tensor> QwenTextModel::rotary_tables(int64_t tokens) const {
  // In fp32 throughout, as transformers does: at 500 tokens an fp64 angle would differ by 3e-5.
  const auto options = at::TensorOptions().dtype(at::kFloat).device(placement_.device);
  const at::Tensor exponents = at::arange(0, config_.head_dim, 2, options) / config_.head_dim;
  const at::Tensor angles = at::outer(at::arange(tokens, options), at::pow(config_.rope_theta, exponents).reciprocal());
  return {angles.cos(), angles.sin()};
}

at::Tensor QwenTextModel::attend(const Layer& layer, const at::Tensor& x, const at::Tensor& cos,
                                 const at::Tensor& sin) const {
  const auto split_heads = [&](const at::Tensor& y) { return y.view({y.size(0), y.size(1), -1, config_.head_dim}); };
  const auto heads_of = [&](const DenseLinear& linear, const std::optional<RmsNorm>& norm) {
    const at::Tensor heads = split_heads(linear(x));
    return rotate(norm ? (*norm)(heads) : heads, cos, sin);
  };
  const at::Tensor q = heads_of(layer.q, layer.q_norm);
  const at::Tensor k = heads_of(layer.k, layer.k_norm);
  const at::Tensor v = split_heads(layer.v(x)).transpose(1, 2);
  const bool is_grouped = config_.num_key_value_heads != config_.num_attention_heads;
  const at::Tensor attended = at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true,
                                                               /*scale=*/std::nullopt, /*enable_gqa=*/is_grouped);
  return layer.out(attended.transpose(1, 2).flatten(2));
}

at::Tensor QwenTextModel::operator()(const at::Tensor& ids) const {
  check_token_ids(ids, kMaxTokens, config_.vocab_size);
  const auto [cos, sin] = rotary_tables(ids.size(1));
  at::Tensor x = at::embedding(embedding_, ids.to(placement_.device));
  for (const Layer& layer : layers_) {
    x = x + attend(layer, layer.attention_norm(x), cos, sin);
    const at::Tensor y = layer.feed_forward_norm(x);
    x = x + layer.down(activate(config_.hidden_act, layer.gate(y)) * layer.up(y));
  }
  return final_norm_ ? (*final_norm_)(x) : x;
}

}  // namespace rtlynx::models
