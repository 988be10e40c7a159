#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "models/text/qwen_prompt.h"
#include "models/text/qwen_text_model.h"
#include "tests/core/expect_error.h"

namespace rtlynx::models {
namespace {

using TensorMap = std::map<std::string, at::Tensor>;
using nlohmann::json;
using rtlynx::testing::expect_error;

json qwen3_config() {
  return {{"model_type", "qwen3"},  {"vocab_size", 40},         {"hidden_size", 8},         {"intermediate_size", 12},
          {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"head_dim", 6}};
}

json qwen2_5_vl_config() {
  json text = qwen3_config();
  text.erase("head_dim");
  text.erase("model_type");
  return {{"model_type", "qwen2_5_vl"}, {"text_config", text}};
}

TensorMap tensors_of(const json& config, const std::string& prefix) {
  const bool is_qwen3 = config["model_type"] == "qwen3";
  const int64_t head = is_qwen3 ? 6 : 2;
  TensorMap tensors = {{prefix + "embed_tokens.weight", at::randn({40, 8})}, {prefix + "norm.weight", at::rand({8})}};
  for (const char* layer : {"layers.0.", "layers.1."}) {
    const auto put = [&](const std::string& name, std::vector<int64_t> shape) {
      tensors[prefix + layer + name] = at::randn(shape);
    };
    for (const auto& [name, rows] : {std::pair{"q", 4 * head}, {"k", 2 * head}, {"v", 2 * head}}) {
      put(std::string("self_attn.") + name + "_proj.weight", {rows, 8});
      if (!is_qwen3) put(std::string("self_attn.") + name + "_proj.bias", {rows});
      if (is_qwen3 && *name != 'v') put(std::string("self_attn.") + name + "_norm.weight", {head});
    }
    put("self_attn.o_proj.weight", {8, 4 * head});
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) put(norm, {8});
    for (const char* name : {"mlp.gate_proj.weight", "mlp.up_proj.weight"}) put(name, {12, 8});
    put("mlp.down_proj.weight", {8, 12});
  }
  return tensors;
}

QwenTextModel build(const json& config, const TensorMap& tensors, HiddenState state = HiddenState::kLast) {
  Weights weights(tensors, "test", Placement{});
  return {io::Config(config, "config.json"), weights, state};
}

TEST(QwenTextModel, PaddingOnTheRightChangesNothingBeforeIt) {
  const c10::InferenceMode inference;
  for (const json& config : {qwen3_config(), qwen2_5_vl_config()}) {
    const QwenTextModel model = build(config, tensors_of(config, "model."));
    const at::Tensor ids = at::arange(2, 10, at::kLong).view({1, 8});
    const at::Tensor padded = at::cat({ids, at::full({1, 5}, 39, at::kLong)}, 1);
    const at::Tensor alone = model(ids);
    EXPECT_TRUE(at::allclose(model(padded).narrow(1, 0, 8), alone, 1e-5, 1e-5));
    EXPECT_TRUE(at::equal(model(ids), alone));
    EXPECT_FALSE(at::allclose(model(ids.flip(1)).flip(1), alone, 0, 1e-2));
  }
}

TEST(QwenTextModel, LeavesWhatTheHiddenStateDoesNotDependOn) {
  const c10::InferenceMode inference;
  const json config = qwen3_config();
  const TensorMap all = tensors_of(config, "model.");
  TensorMap needed;
  for (const auto& [name, tensor] : all) {
    if (name.find("layers.1.") == std::string::npos && name != "model.norm.weight") needed[name] = tensor;
  }
  TensorMap more = all;
  more["lm_head.weight"] = more["visual.patch_embed.weight"] = at::zeros({3});
  const at::Tensor ids = at::arange(5, at::kLong).view({1, 5});
  const at::Tensor expected = build(config, needed, HiddenState::kSecondToLast)(ids);
  EXPECT_TRUE(at::equal(build(config, all, HiddenState::kSecondToLast)(ids), expected));
  EXPECT_TRUE(at::equal(build(config, more, HiddenState::kSecondToLast)(ids), expected));
  EXPECT_FALSE(at::allclose(build(config, more)(ids), expected, 0, 1e-2));
}

TEST(QwenTextModel, ReadsEveryKindOfConfig) {
  const auto parse = [](const json& config) { return QwenTextConfig::parse(io::Config(config, "config.json")); };
  const QwenTextConfig qwen3 = parse({{"model_type", "qwen3"}});
  EXPECT_EQ(qwen3.hidden_size, 4096);
  EXPECT_EQ(qwen3.rope_theta, 1e4);
  EXPECT_FALSE(qwen3.qkv_bias);
  const QwenTextConfig qwen2_5 = parse({{"model_type", "qwen2_5_vl"}});
  EXPECT_EQ(qwen2_5.head_dim, 128);
  EXPECT_EQ(qwen2_5.rope_theta, 1e6);
  EXPECT_TRUE(qwen2_5.qkv_bias && !qwen2_5.out_bias && !qwen2_5.qk_norm);
  json config = qwen3_config();
  config["num_key_value_heads"] = nullptr;
  config["rope_theta"] = 5;
  config["attention_bias"] = true;
  EXPECT_EQ(parse(config).num_key_value_heads, 4);
  EXPECT_EQ(parse(config).rope_theta, 5);
  EXPECT_TRUE(parse(config).qkv_bias && parse(config).out_bias);
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 7.5}};
  EXPECT_EQ(parse(config).rope_theta, 7.5);
}

TEST(QwenTextModel, RefusesBadConfigs) {
  const TensorMap tensors = tensors_of(qwen3_config(), "");
  const std::vector<std::tuple<const char*, json, ErrorCode>> bad = {
      {"model_type", "llama", ErrorCode::kUnknownClass},
      {"model_type", nullptr, ErrorCode::kBadConfig},
      {"num_key_value_heads", 3, ErrorCode::kBadConfig},
      {"num_key_value_heads", 0, ErrorCode::kBadConfig},
      {"head_dim", 5, ErrorCode::kBadConfig},
      {"hidden_size", 1e12, ErrorCode::kBadConfig},
      {"num_hidden_layers", 1025, ErrorCode::kBadConfig},
      {"hidden_act", "mish", ErrorCode::kBadConfig},
      {"rms_norm_eps", -1, ErrorCode::kBadConfig},
      {"rope_theta", 0, ErrorCode::kBadConfig},
      {"rope_scaling", 4, ErrorCode::kBadConfig},
      {"rope_scaling", {{"type", "yarn"}, {"factor", 4}}, ErrorCode::kUnsupported},
      {"rope_parameters", {{"rope_type", "linear"}}, ErrorCode::kUnsupported},
      {"use_sliding_window", true, ErrorCode::kUnsupported},
      {"layer_types", {"full_attention", "sliding_attention"}, ErrorCode::kUnsupported}};
  for (const auto& [key, value, code] : bad) {
    json config = qwen3_config();
    config[key] = value;
    SCOPED_TRACE(std::string(key) + " " + value.dump());
    expect_error(code, {}, [&] { build(config, tensors); });
  }
  json config = qwen2_5_vl_config();
  config["text_config"]["num_attention_heads"] = 3;
  expect_error(ErrorCode::kBadConfig, {}, [&] { build(config, tensors); });
  config["text_config"] = {{"hidden_size", 12}, {"num_attention_heads", 4}, {"num_key_value_heads", 4}};
  expect_error(ErrorCode::kBadConfig, {}, [&] { build(config, tensors); });
}

TEST(QwenTextModel, RefusesBadWeightsAndIds) {
  const TensorMap tensors = tensors_of(qwen3_config(), "model.language_model.");
  const std::string layer = "model.language_model.layers.1.";
  TensorMap missing = tensors;
  missing.erase(layer + "self_attn.q_norm.weight");
  expect_error(ErrorCode::kTensorMissing, {}, [&] { build(qwen3_config(), missing); });
  expect_error(ErrorCode::kTensorMissing, {}, [&] { build(qwen3_config(), {}); });
  TensorMap misshapen = tensors;
  misshapen[layer + "self_attn.k_proj.weight"] = at::zeros({24, 8});
  expect_error(ErrorCode::kTensorShape, {}, [&] { build(qwen3_config(), misshapen); });
  TensorMap more = tensors;
  more[layer + "self_attn.q_proj.bias"] = at::zeros({24});
  expect_error(ErrorCode::kTensorUnexpected, {}, [&] { build(qwen3_config(), more); });

  const QwenTextModel model = build(qwen3_config(), tensors);
  for (const at::Tensor& ids : {at::full({1, 3}, 40, at::kLong), at::full({1, 3}, -1, at::kLong),
                                at::zeros({1, 65537}, at::kLong), at::zeros({3}, at::kLong)}) {
    expect_error(ErrorCode::kInvalidArgument, {}, [&] { model(ids); });
  }
}

TEST(QwenPrompt, GivesTheFeaturesBehindTheDroppedOnes) {
  const c10::InferenceMode inference;
  const QwenTextModel model = build(qwen3_config(), tensors_of(qwen3_config(), ""));
  TokenIds ids;
  for (int64_t i = 0; i < 40; ++i) ids.ids.push_back(i);
  const at::Tensor all = model(at::arange(40, at::kLong).view({1, 40}));
  EXPECT_TRUE(at::equal(prompt_features(kZImagePrompt, model, ids), all.squeeze(0)));
  EXPECT_TRUE(at::equal(prompt_features(kQwenImagePrompt, model, ids), all.squeeze(0).narrow(0, 34, 6)));
  ids.ids.resize(34);
  expect_error(ErrorCode::kInvalidArgument, {}, [&] { prompt_features(kQwenImagePrompt, model, ids); });
}

}  // namespace
}  // namespace rtlynx::models
