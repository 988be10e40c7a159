#pragma once

#include <ATen/ATen.h>

#include <string>
#include <string_view>

#include "models/autoencoder_kl.h"
#include "models/flux_transformer.h"

namespace rtlynx::pipeline {

/// Whether every value is finite; waits for the device.
bool all_finite(const at::Tensor& tensor);

/// "transformer_blocks.3 gives non-finite hidden_states (7 of 4096 values, image 1 of 2)"; `module` and `tensor` name
/// where the values come from, rows of `value` are images.
std::string describe_non_finite(std::string_view module, std::string_view tensor, const at::Tensor& value);

/// Runs the forward again with an observer on every block and describes the first result that is not finite, inputs
/// first; empty where all are finite.
std::string find_non_finite(models::FluxTransformer2DModel& transformer, const models::FluxTransformerInput& input);
/// The same for the decoder.
std::string find_non_finite(const models::AutoencoderKlDecoder& decoder, const at::Tensor& latents);

}  // namespace rtlynx::pipeline
