#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <span>
#include <vector>

#include "evaluation/metrics.h"
#include "evaluation/scenes.h"
#include "linear/weights.h"
#include "pipeline/options.h"

namespace rtlynx::evaluation {

/// What the scorer sees in B pictures.
struct Readings {
  at::Tensor features;         ///< [B, features] fp32 on the CPU
  std::vector<Labels> labels;  ///< the most likely class of each head
};

/// The small CNN of models/mini-flux-scorer: reads emoji per position, colour and pattern. Its graph stands in that
/// folder's README.md. Computes in fp32.
class Scorer {
 public:
  /// Reads config.json, model.safetensors and reference.safetensors. Throws Error with the loaders' codes.
  static Scorer load(const std::filesystem::path& folder, at::Device device);

  /// image [B, 3, size, size] in [-1, 1].
  Readings read(const at::Tensor& image) const;
  /// 8-bit pictures of the size that the scorer was trained for; throws Error(kInvalidArgument) for others.
  Readings read(std::span<const pipeline::Image> images) const;

  const SceneVocabulary& vocabulary() const { return vocabulary_; }
  /// Moments of the features of real renders.
  const FeatureMoments& reference() const { return reference_; }
  int64_t image_size() const { return image_size_; }

 private:
  struct Convolution {
    at::Tensor weight, bias, norm_weight, norm_bias;
    int64_t stride = 1;
  };
  Scorer(const io::Config& config, Weights& weights);
  at::Tensor features(at::Tensor x) const;

  SceneVocabulary vocabulary_;
  FeatureMoments reference_;
  at::Device device_ = at::kCPU;
  int64_t image_size_ = 0;
  int64_t norm_groups_ = 0;
  double norm_eps_ = 0;
  std::vector<Convolution> convolutions_;
  at::Tensor feature_weight_, feature_bias_;
  std::vector<std::pair<at::Tensor, at::Tensor>> heads_;  // weight, bias, in the order of kHeadNames
};

}  // namespace rtlynx::evaluation
