#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/json.h"
#include "linear/weights.h"
#include "models/dense_linear.h"
#include "models/rms_norm.h"
#include "models/text/activation.h"

namespace rtlynx::models {

/// text_encoder/config.json of Qwen3 (model_type "qwen3", Z-Image) or of Qwen2.5-VL (model_type "qwen2_5_vl",
/// Qwen-Image), whose language model is described in "text_config" or, in older configs, at the top.
struct QwenTextConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  ///< each serves num_attention_heads / num_key_value_heads heads
  int64_t head_dim = 0;             ///< heads need not add up to hidden_size
  Activation hidden_act = Activation::kSilu;
  double rms_norm_eps = 0;
  double rope_theta = 0;
  bool qkv_bias = false;
  bool out_bias = false;
  bool qk_norm = false;  ///< RMSNorm of every head's query and key before they are rotated

  /// transformers' defaults where the config has no value. Throws Error: kBadConfig, kUnknownClass for another
  /// model_type, kUnsupported for sliding windows and scaled rotary embeddings.
  static QwenTextConfig parse(const io::Config& config);
};

/// Which of transformers' hidden_states a pipeline takes.
enum class HiddenState {
  kLast,          ///< [-1]: of the last layer, normalised (Qwen-Image)
  kSecondToLast,  ///< [-2]: what the last layer is given (Z-Image)
};

/// The decoder of Qwen3 or of Qwen2.5-VL as a text encoder. Attention is causal, so tokens that a batch is padded with
/// on the right change nothing before them and no mask is needed; what stands at their own places has no meaning.
/// Qwen2.5-VL's three-axis rotary embedding is the plain one here, for text has the same position on all three axes.
class QwenTextModel {
 public:
  /// Takes every tensor that the hidden state depends on, under the names of published checkpoints ("model.",
  /// "model.language_model.") or of the bare model; "lm_head", the vision tower and for kSecondToLast the last layer
  /// are left. Throws Error: those of parse, kTensorMissing, kTensorShape, kTensorUnexpected.
  QwenTextModel(const io::Config& config, Weights& weights, HiddenState hidden_state);
  /// From a folder with config.json and model*.safetensors. What is left is not read either.
  static QwenTextModel load(const std::filesystem::path& folder, const Placement& placement, HiddenState hidden_state);

  /// `ids`: int64 [batch, tokens] on any device, at most 65,536 tokens, padded on the right if at all. Returns
  /// [batch, tokens, hidden_size] in the model's dtype, on its device. Deterministic.
  /// Throws Error(kInvalidArgument) as check_token_ids does.
  at::Tensor operator()(const at::Tensor& ids) const;

  const QwenTextConfig& config() const { return config_; }

 private:
  struct Layer {
    RmsNorm attention_norm;
    DenseLinear q, k, v, out;
    std::optional<RmsNorm> q_norm, k_norm;
    RmsNorm feed_forward_norm;
    DenseLinear gate, up, down;
  };
  Layer take_layer(Weights& weights, const std::string& name) const;
  /// cos, sin: fp32 [tokens, head_dim / 2]
  std::pair<at::Tensor, at::Tensor> rotary_tables(int64_t tokens) const;
  at::Tensor attend(const Layer& layer, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) const;

  QwenTextConfig config_;
  Placement placement_;
  at::Tensor embedding_;  // [vocab_size, hidden_size]
  std::vector<Layer> layers_;
  std::optional<RmsNorm> final_norm_;  // none for kSecondToLast
};

}  // namespace rtlynx::models
