#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <vector>

#include "linear/weights.h"
#include "models/dense_linear.h"

namespace rtlynx::models {

/// A 2-D convolution with bias, stride 1, that keeps height and width (padding kernel / 2).
struct SameConv2d {
  at::Tensor weight;  ///< [out, in, kernel, kernel]
  at::Tensor bias;    ///< [out]

  SameConv2d(Weights& weights, const std::string& name, int64_t in, int64_t out, int64_t kernel);
  at::Tensor operator()(const at::Tensor& x) const;
};

/// GroupNorm with weights, eps 1e-6.
struct GroupNorm {
  at::Tensor weight;
  at::Tensor bias;
  int64_t groups;

  GroupNorm(Weights& weights, const std::string& name, int64_t channels, int64_t groups);
  at::Tensor operator()(const at::Tensor& x) const;
};

/// diffusers' ResnetBlock2D without a time embedding: norm, SiLU, conv, twice, plus the input (through a 1x1
/// convolution where the widths differ).
class VaeResnetBlock {
 public:
  VaeResnetBlock(Weights& weights, const std::string& name, int64_t in, int64_t out, int64_t groups);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  GroupNorm norm1_;
  SameConv2d conv1_;
  GroupNorm norm2_;
  SameConv2d conv2_;
  std::optional<SameConv2d> conv_shortcut_;
};

/// Attention with one head over all pixels, plus the input.
class VaeAttention {
 public:
  VaeAttention(Weights& weights, const std::string& name, int64_t channels, int64_t groups);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  GroupNorm group_norm_;
  DenseLinear to_q_, to_k_, to_v_, to_out_;
};

/// Resnet, attention (if the model has it), resnet.
class VaeMidBlock {
 public:
  VaeMidBlock(Weights& weights, const std::string& name, int64_t channels, int64_t groups, bool attention);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  VaeResnetBlock first_;
  std::optional<VaeAttention> attention_;
  VaeResnetBlock second_;
};

/// Resnets, then (except in the last block) nearest-neighbour doubling and a convolution.
class VaeUpBlock {
 public:
  VaeUpBlock(Weights& weights, const std::string& name, int64_t in, int64_t out, int64_t resnets, int64_t groups,
             bool upsample);
  at::Tensor operator()(at::Tensor x) const;

 private:
  std::vector<VaeResnetBlock> resnets_;
  std::optional<SameConv2d> upsampler_;
};

}  // namespace rtlynx::models
