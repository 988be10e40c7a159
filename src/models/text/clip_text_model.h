#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <vector>

#include "io/json.h"
#include "linear/weights.h"
#include "models/dense_linear.h"
#include "models/text/activation.h"

namespace rtlynx::models {

/// text_encoder/config.json of CLIPTextModel; defaults are transformers'.
struct ClipTextConfig {
  int64_t vocab_size = 49408;
  int64_t hidden_size = 512;
  int64_t intermediate_size = 2048;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 8;
  int64_t max_position_embeddings = 77;
  Activation hidden_act = Activation::kQuickGelu;
  double layer_norm_eps = 1e-5;
  /// Where the pooled output is taken: at the first such token; 2, which stands in FLUX.1-dev's config, means at the
  /// largest id instead (the end token is CLIP's last one).
  int64_t eos_token_id = 49407;

  /// Throws Error(kBadConfig).
  static ClipTextConfig parse(const io::Config& config);
};

/// Both in the model's dtype and on its device.
struct ClipTextOutput {
  at::Tensor last_hidden_state;  ///< [batch, tokens, hidden_size], after the final layer norm
  at::Tensor pooled;             ///< [batch, hidden_size], of the end token
};

/// transformers' CLIPTextModel: causal attention over the whole, padded sequence, as FluxPipeline calls it.
class ClipTextModel {
 public:
  /// Takes every tensor, under "text_model." as published checkpoints have them or without it as transformers 5 writes
  /// them. Throws Error: kBadConfig, kTensorMissing, kTensorShape, kTensorUnexpected.
  ClipTextModel(const io::Config& config, Weights& weights);
  /// From a folder with config.json and model*.safetensors.
  static ClipTextModel load(const std::filesystem::path& folder, const Placement& placement);

  /// `ids`: int64 [batch, tokens] on any device, tokens <= max_position_embeddings. Deterministic.
  /// Throws Error(kInvalidArgument) as check_token_ids does.
  ClipTextOutput operator()(const at::Tensor& ids) const;

  const ClipTextConfig& config() const { return config_; }

 private:
  struct Norm {
    at::Tensor weight, bias;
  };
  struct Layer {
    Norm norm1;
    DenseLinear q, k, v, out;
    Norm norm2;
    DenseLinear fc1, fc2;
  };
  Norm take_norm(Weights& weights, const std::string& name) const;
  Layer take_layer(Weights& weights, const std::string& name) const;
  at::Tensor normalize(const Norm& norm, const at::Tensor& x) const;
  at::Tensor attend(const Layer& layer, const at::Tensor& x) const;
  at::Tensor end_positions(const at::Tensor& ids) const;

  ClipTextConfig config_;
  Placement placement_;
  at::Tensor token_embedding_;     // [vocab_size, hidden_size]
  at::Tensor position_embedding_;  // [max_position_embeddings, hidden_size]
  std::vector<Layer> layers_;
  Norm final_norm_;
};

}  // namespace rtlynx::models
