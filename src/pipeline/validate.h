#pragma once

#include <cstdint>

#include "pipeline/options.h"

namespace rtlynx::pipeline {

/// What a model allows for the size of a picture.
struct SizeRule {
  int64_t vae_scale_factor = 8;
  int64_t packing = 2;
  int64_t multiple() const { return vae_scale_factor * packing; }
};

/// All throw Error(kInvalidArgument) that names the value, what it is and what is allowed.
void check_size(const SizeRule& rule, int64_t width, int64_t height);
void check_denoise_options(const DenoiseOptions& options);
/// `limit` is what diffusers allows, 512.
void check_max_sequence_length(int64_t max_sequence_length, int64_t limit);
void check_image_count(int64_t num_images_per_prompt);

}  // namespace rtlynx::pipeline
