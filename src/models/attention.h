#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <vector>

#include "linear/linear.h"
#include "linear/weights.h"
#include "models/rms_norm.h"

namespace rtlynx::models {

/// What the attention layers of one transformer share.
struct AttentionSettings {
  int64_t heads = 0;
  int64_t head_dim = 0;
  bool has_bias = true;
  std::optional<RmsNormKind> qk_norm = RmsNormKind{};  ///< of each head's channels; none where the model has none

  int64_t dim() const { return heads * head_dim; }
};

/// The last parts of the names of a stream's tensors below `<block>.attn`.
struct QkvNames {
  const char* q;
  const char* k;
  const char* v;
  const char* norm_q;
  const char* norm_k;
};
inline constexpr QkvNames kOwnQkv = {"to_q", "to_k", "to_v", "norm_q", "norm_k"};
/// The text stream's in a double-stream block.
inline constexpr QkvNames kAddedQkv = {"add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"};

/// Query, key and value projections of one stream, with RMS norms over each head's channels.
class Qkv {
 public:
  /// `attention` is the layer's module path ("transformer_blocks.0.attn").
  Qkv(Weights& weights, const std::string& attention, const QkvNames& names, const AttentionSettings& settings);

  struct Heads {
    at::Tensor query, key, value;  ///< each [B, S, heads, head_dim]
  };
  /// x [B, S, dim].
  Heads operator()(const at::Tensor& x) const;
  void append_linears(std::vector<Linear*>& linears);

 private:
  int64_t heads_, head_dim_;
  Linear to_q_, to_k_, to_v_;
  std::optional<RmsNorm> norm_q_, norm_k_;
};

/// Rotates queries and keys by `rope` (rope.h) and attends with scale 1 / sqrt(head_dim); returns [B, S, dim].
/// `mask`: bool, broadcast to [B, heads, S, S], true where a query (row) may see a key (column); undefined: all to all.
at::Tensor attend(const Qkv::Heads& heads, const at::Tensor& rope, const at::Tensor& mask);

}  // namespace rtlynx::models
