#include "pipeline/validate.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "rtlynx/status.h"

namespace rtlynx::pipeline {
namespace {

constexpr int64_t kMaxSide = 16384;  // a side of 16384 already means 4 GB for one fp32 activation of FLUX's VAE
constexpr int64_t kMaxSteps = 10'000;
constexpr int64_t kMaxImages = 4096;
constexpr double kMaxGuidance = 1e4;

void check_range(std::string_view name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{} is {}, expected {} to {}", name, value, min, max));
}

void check_side(const SizeRule& rule, std::string_view name, int64_t value) {
  check_range(name, value, 1, kMaxSide);
  if (value % rule.multiple() == 0) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{} is {}, must be a multiple of {} for this model (vae factor {} x packing {})", name, value,
                          rule.multiple(), rule.vae_scale_factor, rule.packing));
}

void check_scale(std::string_view name, double value) {
  if (std::isfinite(value) && value >= 0 && value <= kMaxGuidance) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{} is {}, expected 0 to {}", name, value, kMaxGuidance));
}

}  // namespace

void check_size(const SizeRule& rule, int64_t width, int64_t height) {
  check_side(rule, "width", width);
  check_side(rule, "height", height);
}

void check_denoise_options(const DenoiseOptions& options) {
  check_range("num_inference_steps", options.num_inference_steps, 1, kMaxSteps);
  check_scale("guidance_scale", options.guidance_scale);
  check_scale("true_cfg_scale", options.true_cfg_scale);
}

void check_max_sequence_length(int64_t max_sequence_length, int64_t limit) {
  check_range("max_sequence_length", max_sequence_length, 1, limit);
}

void check_image_count(int64_t num_images_per_prompt) {
  check_range("num_images_per_prompt", num_images_per_prompt, 1, kMaxImages);
}

}  // namespace rtlynx::pipeline
