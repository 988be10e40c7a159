#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/text/clip_text_model.h"
#include "models/text/t5_encoder.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

using TensorMap = std::map<std::string, at::Tensor>;
using nlohmann::json;

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kOk;
}

json clip_config() {
  return {{"vocab_size", 20},           {"hidden_size", 8},         {"intermediate_size", 12},
          {"num_hidden_layers", 1},     {"num_attention_heads", 2}, {"max_position_embeddings", 6},
          {"hidden_act", "quick_gelu"}, {"eos_token_id", 19}};
}

TensorMap clip_tensors(const std::string& prefix) {
  TensorMap tensors;
  const auto put = [&](const std::string& name, std::vector<int64_t> shape) {
    tensors[prefix + name] = at::randn(shape);
  };
  put("embeddings.token_embedding.weight", {20, 8});
  put("embeddings.position_embedding.weight", {6, 8});
  for (const char* norm : {"encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2", "final_layer_norm"}) {
    put(std::string(norm) + ".weight", {8});
    put(std::string(norm) + ".bias", {8});
  }
  for (const char* linear : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
    put(std::string("encoder.layers.0.self_attn.") + linear + ".weight", {8, 8});
    put(std::string("encoder.layers.0.self_attn.") + linear + ".bias", {8});
  }
  put("encoder.layers.0.mlp.fc1.weight", {12, 8});
  put("encoder.layers.0.mlp.fc1.bias", {12});
  put("encoder.layers.0.mlp.fc2.weight", {8, 12});
  put("encoder.layers.0.mlp.fc2.bias", {8});
  return tensors;
}

ClipTextModel build_clip(const json& config, const TensorMap& tensors) {
  Weights weights(tensors, "test", Placement{});
  return {io::Config(config, "config.json"), weights};
}

json t5_config() {
  return {{"vocab_size", 20},
          {"d_model", 8},
          {"d_kv", 3},
          {"d_ff", 12},
          {"num_layers", 1},
          {"num_heads", 2},
          {"relative_attention_num_buckets", 8},
          {"feed_forward_proj", "gated-gelu"}};
}

TensorMap t5_tensors(const std::string& embedding) {
  TensorMap tensors = {{embedding, at::randn({20, 8})}, {"encoder.final_layer_norm.weight", at::randn({8})}};
  const std::string block = "encoder.block.0.layer.";
  tensors[block + "0.SelfAttention.relative_attention_bias.weight"] = at::randn({8, 2});
  for (const char* name : {"q", "k", "v"}) tensors[block + "0.SelfAttention." + name + ".weight"] = at::randn({6, 8});
  tensors[block + "0.SelfAttention.o.weight"] = at::randn({8, 6});
  for (const char* name : {"wi_0", "wi_1"})
    tensors[block + "1.DenseReluDense." + name + ".weight"] = at::randn({12, 8});
  tensors[block + "1.DenseReluDense.wo.weight"] = at::randn({8, 12});
  for (const char* layer : {"0", "1"}) tensors[block + layer + ".layer_norm.weight"] = at::randn({8});
  return tensors;
}

T5Encoder build_t5(const json& config, const TensorMap& tensors) {
  Weights weights(tensors, "test", Placement{});
  return {io::Config(config, "config.json"), weights};
}

TEST(ClipTextModel, ReadsCheckpointsWithAndWithoutPrefix) {
  const c10::InferenceMode inference;
  TensorMap plain = clip_tensors("");
  TensorMap prefixed;
  for (const auto& [name, tensor] : plain) prefixed["text_model." + name] = tensor;
  prefixed["text_model.embeddings.position_ids"] = at::arange(6);
  const at::Tensor ids = at::arange(12, at::kLong).view({2, 6});
  const ClipTextOutput a = build_clip(clip_config(), plain)(ids);
  const ClipTextOutput b = build_clip(clip_config(), prefixed)(ids);
  EXPECT_TRUE(at::equal(a.last_hidden_state, b.last_hidden_state));
  EXPECT_EQ(a.pooled.sizes(), (at::IntArrayRef{2, 8}));
}

TEST(ClipTextModel, PoolsAtTheEndToken) {
  const c10::InferenceMode inference;
  const TensorMap tensors = clip_tensors("");
  const at::Tensor ids = at::tensor({0, 1, 19, 19, 19, 7, 17, 3, 2, 5, 18, 4}, at::kLong).view({2, 6});
  json config = clip_config();
  const auto pooled_rows = [&](int64_t row0, int64_t row1) {
    const ClipTextOutput out = build_clip(config, tensors)(ids);
    EXPECT_TRUE(at::equal(out.pooled[0], out.last_hidden_state[0][row0]));
    EXPECT_TRUE(at::equal(out.pooled[1], out.last_hidden_state[1][row1]));
  };
  pooled_rows(2, 0);  // the first 19; none at all
  config["eos_token_id"] = 2;
  pooled_rows(2, 4);  // the first of the largest ids, although the second prompt has a 2
}

TEST(ClipTextModel, IsCausal) {
  const c10::InferenceMode inference;
  const ClipTextModel model = build_clip(clip_config(), clip_tensors(""));
  const at::Tensor a = model(at::tensor({1, 2, 3, 4}, at::kLong).view({1, 4})).last_hidden_state;
  const at::Tensor b = model(at::tensor({1, 2, 3, 5}, at::kLong).view({1, 4})).last_hidden_state;
  EXPECT_TRUE(at::allclose(a.narrow(1, 0, 3), b.narrow(1, 0, 3), 0, 1e-6));
  EXPECT_FALSE(at::allclose(a.narrow(1, 3, 1), b.narrow(1, 3, 1), 0, 1e-3));
}

TEST(ClipTextModel, RefusesBadConfigsWeightsAndIds) {
  const TensorMap tensors = clip_tensors("");
  const std::vector<std::pair<const char*, json>> bad = {
      {"num_attention_heads", 3}, {"num_attention_heads", 0}, {"hidden_size", -8},   {"hidden_act", "mish"},
      {"num_hidden_layers", 1e9}, {"layer_norm_eps", -1},     {"eos_token_id", "x"}, {"vocab_size", 1e12}};
  for (const auto& [key, value] : bad) {
    json config = clip_config();
    config[key] = value;
    EXPECT_EQ(code_of([&] { build_clip(config, tensors); }), ErrorCode::kBadConfig) << key << " " << value;
  }
  TensorMap missing = tensors;
  missing.erase("encoder.layers.0.mlp.fc1.bias");
  EXPECT_EQ(code_of([&] { build_clip(clip_config(), missing); }), ErrorCode::kTensorMissing);
  TensorMap misshapen = tensors;
  misshapen["final_layer_norm.bias"] = at::zeros({9});
  EXPECT_EQ(code_of([&] { build_clip(clip_config(), misshapen); }), ErrorCode::kTensorShape);
  TensorMap more = tensors;
  more["encoder.layers.1.mlp.fc1.bias"] = at::zeros({12});
  EXPECT_EQ(code_of([&] { build_clip(clip_config(), more); }), ErrorCode::kTensorUnexpected);

  const ClipTextModel model = build_clip(clip_config(), tensors);
  for (const at::Tensor& ids : {at::full({1, 3}, 20, at::kLong), at::full({1, 3}, -1, at::kLong),
                                at::zeros({1, 7}, at::kLong), at::zeros({3}, at::kLong), at::zeros({1, 3}, at::kInt),
                                at::zeros({0, 3}, at::kLong), at::zeros({1, 0}, at::kLong)}) {
    EXPECT_EQ(code_of([&] { model(ids); }), ErrorCode::kInvalidArgument) << ids.sizes();
  }
}

TEST(T5Encoder, ReadsTheEmbeddingUnderEitherName) {
  const c10::InferenceMode inference;
  TensorMap shared = t5_tensors("shared.weight");
  TensorMap tied = shared;
  tied["encoder.embed_tokens.weight"] = shared["shared.weight"];
  TensorMap only_tied = tied;
  only_tied.erase("shared.weight");
  const at::Tensor ids = at::arange(5, at::kLong).view({1, 5});
  const at::Tensor expected = build_t5(t5_config(), shared)(ids);
  EXPECT_TRUE(at::equal(build_t5(t5_config(), tied)(ids), expected));
  EXPECT_TRUE(at::equal(build_t5(t5_config(), only_tied)(ids), expected));
}

TEST(T5Encoder, RefusesBadConfigsWeightsAndIds) {
  const TensorMap tensors = t5_tensors("shared.weight");
  const std::vector<std::pair<const char*, json>> bad = {{"num_heads", 0},
                                                         {"num_layers", -1},
                                                         {"d_kv", "3"},
                                                         {"feed_forward_proj", "gated-mish"},
                                                         {"feed_forward_proj", "gated-"},
                                                         {"relative_attention_num_buckets", 2},
                                                         {"relative_attention_max_distance", 2},
                                                         {"layer_norm_epsilon", 2}};
  for (const auto& [key, value] : bad) {
    json config = t5_config();
    config[key] = value;
    EXPECT_EQ(code_of([&] { build_t5(config, tensors); }), ErrorCode::kBadConfig) << key << " " << value;
  }
  TensorMap missing = tensors;
  missing.erase("shared.weight");
  EXPECT_EQ(code_of([&] { build_t5(t5_config(), missing); }), ErrorCode::kTensorMissing);
  json plain = t5_config();
  plain["feed_forward_proj"] = "relu";
  EXPECT_EQ(code_of([&] { build_t5(plain, tensors); }), ErrorCode::kTensorMissing);
  TensorMap more = tensors;
  more["decoder.final_layer_norm.weight"] = at::zeros({8});
  EXPECT_EQ(code_of([&] { build_t5(t5_config(), more); }), ErrorCode::kTensorUnexpected);
  const T5Encoder model = build_t5(t5_config(), tensors);
  EXPECT_EQ(code_of([&] { model(at::full({1, 3}, 20, at::kLong)); }), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace rtlynx::models
