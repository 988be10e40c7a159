#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <vector>

#include "linear/linear.h"
#include "linear/weights.h"
#include "models/attention.h"
#include "models/dense_linear.h"
#include "models/rms_norm.h"

namespace rtlynx::models {

/// What every block of one Z-Image transformer shares.
struct ZImageBlockSettings {
  AttentionSettings attention;
  int64_t mlp_dim = 0;
  int64_t adaln_dim = 0;  ///< width of the conditioning vector
  double norm_eps = 1e-5;
};

/// SwiGLU without biases: w2(silu(w1 x) * w3 x).
class SwiGluFeedForward {
 public:
  SwiGluFeedForward(Weights& weights, const std::string& name, int64_t dim, int64_t mlp_dim);
  at::Tensor operator()(const at::Tensor& x) const;
  void append_linears(std::vector<Linear*>& linears);

 private:
  Linear w1_, w2_, w3_;
};

/// A single-stream block with RMS norms before and after attention and MLP. Blocks of the context refiner are not
/// modulated.
class ZImageTransformerBlock {
 public:
  ZImageTransformerBlock(Weights& weights, const std::string& name, const ZImageBlockSettings& settings,
                         bool modulation);

  struct Conditioning {
    at::Tensor rope;   ///< [B, S, head_dim / 2] or [S, head_dim / 2]
    at::Tensor mask;   ///< attend()'s; undefined where all see all
    at::Tensor adaln;  ///< [B, adaln_dim]; read by modulated blocks only
  };
  /// x [B, S, dim] -> the same shape.
  at::Tensor operator()(const at::Tensor& x, const Conditioning& conditioning) const;
  /// attention.to_q, to_k, to_v, to_out.0, feed_forward.w1, w2, w3.
  void append_linears(std::vector<Linear*>& linears);

 private:
  at::Tensor attention(const at::Tensor& x, const Conditioning& conditioning) const {
    return to_out_(attend(qkv_(x), conditioning.rope, conditioning.mask));
  }

  Qkv qkv_;
  Linear to_out_;
  SwiGluFeedForward feed_forward_;
  RmsNorm attention_norm1_, attention_norm2_, ffn_norm1_, ffn_norm2_;
  std::optional<DenseLinear> modulation_;
};

}  // namespace rtlynx::models
