#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "linear/linear.h"
#include "linear/weights.h"
#include "models/dense_linear.h"

namespace rtlynx::models {

/// Sizes that every block of one FLUX transformer shares.
struct FluxBlockSizes {
  int64_t heads = 0;
  int64_t head_dim = 0;

  int64_t dim() const { return heads * head_dim; }
  int64_t mlp_dim() const { return 4 * dim(); }
};

/// What all blocks of one forward read: silu(temb) [B, dim] and the rotary table of [text, image].
struct FluxConditioning {
  at::Tensor silu_temb;
  at::Tensor rope;
};

/// Query, key and value projections of one stream, with RMS norms over each head's channels (eps 1e-6).
class FluxQkv {
 public:
  /// `q`, `k`, `v`, `norm_q`, `norm_k` are the last parts of the tensors' names below `attn`.
  struct Names {
    const char* q;
    const char* k;
    const char* v;
    const char* norm_q;
    const char* norm_k;
  };
  FluxQkv(Weights& weights, const std::string& attn, const Names& names, const FluxBlockSizes& sizes);

  struct Heads {
    at::Tensor query, key, value;  ///< each [B, S, heads, head_dim]
  };
  Heads operator()(const at::Tensor& x) const;
  void append_linears(std::vector<Linear*>& linears);

 private:
  FluxBlockSizes sizes_;
  Linear to_q_, to_k_, to_v_;
  at::Tensor norm_q_, norm_k_;
};

/// Linear, GELU (tanh approximation), Linear.
class FluxFeedForward {
 public:
  FluxFeedForward(Weights& weights, const std::string& name, const FluxBlockSizes& sizes);
  at::Tensor operator()(const at::Tensor& x) const;
  void append_linears(std::vector<Linear*>& linears);

 private:
  Linear up_, down_;
};

/// A double-stream block: image and text tokens keep their own weights and meet in the attention.
class FluxTransformerBlock {
 public:
  FluxTransformerBlock(Weights& weights, const std::string& name, const FluxBlockSizes& sizes);

  /// Updates hidden_states [B, S_image, dim] and encoder_hidden_states [B, S_text, dim].
  void operator()(at::Tensor& hidden_states, at::Tensor& encoder_hidden_states,
                  const FluxConditioning& conditioning) const;
  void append_linears(std::vector<Linear*>& linears);

 private:
  DenseLinear norm1_, norm1_context_;
  FluxQkv image_qkv_;
  Linear to_out_;
  FluxQkv text_qkv_;
  Linear to_add_out_;
  FluxFeedForward ff_, ff_context_;
};

/// A single-stream block on the joined sequence [text, image]; attention and MLP run beside each other.
class FluxSingleTransformerBlock {
 public:
  FluxSingleTransformerBlock(Weights& weights, const std::string& name, const FluxBlockSizes& sizes);

  /// hidden_states [B, S_text + S_image, dim] -> the same shape.
  at::Tensor operator()(const at::Tensor& hidden_states, const FluxConditioning& conditioning) const;
  void append_linears(std::vector<Linear*>& linears);

 private:
  DenseLinear norm_;
  FluxQkv qkv_;
  Linear proj_mlp_;
  Linear proj_out_;
};

/// LayerNorm without weights (eps 1e-6) over the last dimension, times (1 + scale), plus shift; scale, shift [B, dim].
at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift);

}  // namespace rtlynx::models
