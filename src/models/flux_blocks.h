#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "linear/linear.h"
#include "linear/weights.h"
#include "models/attention.h"
#include "models/dense_linear.h"
#include "models/double_stream_block.h"

namespace rtlynx::models {

/// A single-stream block on the joined sequence [text, image]; attention and MLP run beside each other.
class FluxSingleTransformerBlock {
 public:
  FluxSingleTransformerBlock(Weights& weights, const std::string& name, const AttentionSettings& settings);

  /// hidden_states [B, S_text + S_image, dim] -> the same shape.
  at::Tensor operator()(const at::Tensor& hidden_states, const BlockConditioning& conditioning) const;
  void append_linears(std::vector<Linear*>& linears);

 private:
  DenseLinear norm_;
  Qkv qkv_;
  Linear proj_mlp_;
  Linear proj_out_;
};

}  // namespace rtlynx::models
