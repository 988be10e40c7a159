#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "linear/linear.h"
#include "linear/weights.h"
#include "models/attention.h"
#include "models/dense_linear.h"

namespace rtlynx::models {

/// What all blocks of one forward read.
struct BlockConditioning {
  at::Tensor silu_temb;  ///< silu(temb) [B, dim]
  at::Tensor rope;       ///< the rotary table of [text, image]
  at::Tensor mask;       ///< attend()'s mask over [text, image]; undefined where all see all
};

/// Linear, GELU (tanh approximation), Linear, four times as wide inside.
class GeluFeedForward {
 public:
  GeluFeedForward(Weights& weights, const std::string& name, int64_t dim);
  at::Tensor operator()(const at::Tensor& x) const;
  void append_linears(std::vector<Linear*>& linears);

 private:
  Linear up_, down_;
};

/// A double-stream block of FLUX or Qwen-Image: image and text tokens keep their own weights and meet in the attention.
class DoubleStreamBlock {
 public:
  /// The modules' names below the block; those of the attention are the same in both models.
  struct Names {
    const char* image_modulation;
    const char* text_modulation;
    const char* image_mlp;
    const char* text_mlp;
  };
  DoubleStreamBlock(Weights& weights, const std::string& name, const Names& names, const AttentionSettings& settings);

  /// Updates hidden_states [B, S_image, dim] and encoder_hidden_states [B, S_text, dim].
  void operator()(at::Tensor& hidden_states, at::Tensor& encoder_hidden_states,
                  const BlockConditioning& conditioning) const;
  /// attn.to_q, to_k, to_v, to_out.0, add_q_proj, add_k_proj, add_v_proj, to_add_out, then up and down of the image
  /// MLP and of the text MLP.
  void append_linears(std::vector<Linear*>& linears);

 private:
  DenseLinear image_modulation_, text_modulation_;
  Qkv image_qkv_;
  Linear to_out_;
  Qkv text_qkv_;
  Linear to_add_out_;
  GeluFeedForward image_mlp_, text_mlp_;
};

}  // namespace rtlynx::models
