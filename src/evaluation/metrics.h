#pragma once

#include <ATen/ATen.h>

#include <span>

#include "evaluation/scenes.h"
#include "pipeline/options.h"

namespace rtlynx::evaluation {

/// Mean [f] and covariance [f, f] of feature vectors, fp64 on the CPU.
struct FeatureMoments {
  at::Tensor mean;
  at::Tensor covariance;
};

/// features [N, f], N >= 2; the covariance is the unbiased one.
FeatureMoments moments(const at::Tensor& features);

/// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) in fp64; the square roots through the eigenvalues of symmetric
/// matrices, negative ones (rounding, fewer samples than features) taken as 0. Symmetric up to rounding; 0 for equal
/// moments up to rounding.
double frechet_distance(const FeatureMoments& a, const FeatureMoments& b);

/// Peak signal-to-noise ratio of two 8-bit pictures of one size, in dB; 100 for equal ones. Throws
/// Error(kInvalidArgument) where the sizes differ.
double psnr(const pipeline::Image& a, const pipeline::Image& b);

/// The share of pictures in which every head reads what was asked for.
double prompt_accuracy(std::span<const Labels> asked, std::span<const Labels> found);
/// The share for each head.
std::array<double, kNumHeads> head_accuracy(std::span<const Labels> asked, std::span<const Labels> found);

}  // namespace rtlynx::evaluation
