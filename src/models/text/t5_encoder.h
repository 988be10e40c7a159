#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "linear/weights.h"
#include "models/dense_linear.h"
#include "models/text/activation.h"

namespace rtlynx::models {

/// text_encoder_2/config.json of T5EncoderModel; defaults are transformers'.
struct T5Config {
  int64_t vocab_size = 32128;
  int64_t d_model = 512;
  int64_t d_kv = 64;  ///< per head; heads need not add up to d_model
  int64_t d_ff = 2048;
  int64_t num_layers = 6;
  int64_t num_heads = 8;
  int64_t relative_attention_num_buckets = 32;
  int64_t relative_attention_max_distance = 128;
  double layer_norm_epsilon = 1e-6;
  Activation activation = Activation::kRelu;
  bool is_gated = false;  ///< feed_forward_proj "gated-..."

  /// Throws Error(kBadConfig).
  static T5Config parse(const io::Config& config);
};

/// transformers' T5EncoderModel without an attention mask, as FluxPipeline calls it: padding takes part.
/// In fp16 the feed forward's last product is in fp32, and with it the residual stream behind it, as in transformers.
class T5Encoder {
 public:
  /// Takes every tensor. Throws Error: kBadConfig, kTensorMissing, kTensorShape, kTensorUnexpected.
  T5Encoder(const io::Config& config, Weights& weights);
  /// From a folder with config.json and model*.safetensors.
  static T5Encoder load(const std::filesystem::path& folder, const Placement& placement);

  /// `ids`: int64 [batch, tokens] on any device, at most 65,536 tokens. Returns the last hidden state
  /// [batch, tokens, d_model] in the model's dtype, on its device. Deterministic.
  /// Throws Error(kInvalidArgument) as check_token_ids does.
  at::Tensor operator()(const at::Tensor& ids) const;

  const T5Config& config() const { return config_; }

 private:
  struct Layer {
    at::Tensor attention_norm;
    DenseLinear q, k, v, o;
    at::Tensor feed_forward_norm;
    DenseLinear wi;                   // wi_0 where gated
    std::optional<DenseLinear> gate;  // wi_1
    DenseLinear wo;
  };
  Layer take_layer(Weights& weights, const std::string& name) const;
  /// T5's layer norm: no mean, no bias, fp32 inside.
  at::Tensor normalize(const at::Tensor& weight, const at::Tensor& x) const;
  /// [1, num_heads, tokens, tokens]: what the distance of two tokens adds to their attention logit.
  at::Tensor position_bias(int64_t tokens) const;
  at::Tensor attend(const Layer& layer, const at::Tensor& x, const at::Tensor& bias) const;
  at::Tensor feed_forward(const Layer& layer, const at::Tensor& x) const;

  T5Config config_;
  Placement placement_;
  at::Tensor embedding_;                // [vocab_size, d_model]
  at::Tensor relative_attention_bias_;  // [num_buckets, num_heads]
  std::vector<Layer> layers_;
  at::Tensor final_norm_;
};

}  // namespace rtlynx::models
