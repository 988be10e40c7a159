#include "pipeline/non_finite.h"

#include <fmt/format.h>

namespace rtlynx::pipeline {
namespace {

/// Keeps the description of the first tensor that is not finite.
class FirstNonFinite {
 public:
  void see(std::string_view module, std::string_view tensor, const at::Tensor& value) {
    if (found_.empty() && !all_finite(value)) found_ = describe_non_finite(module, tensor, value);
  }
  const std::string& description() const { return found_; }

 private:
  std::string found_;
};

}  // namespace

bool all_finite(const at::Tensor& tensor) {
  return at::isfinite(tensor).all().item<bool>();
}

std::string describe_non_finite(std::string_view module, std::string_view tensor, const at::Tensor& value) {
  const at::Tensor bad = at::isfinite(value).logical_not().flatten(1);
  const auto row = bad.any(1).to(at::kByte).argmax().item<int64_t>();
  return fmt::format("{} gives non-finite {} ({} of {} values, image {} of {})", module, tensor,
                     bad.sum().item<int64_t>(), value.numel(), row + 1, value.size(0));
}

std::string find_non_finite(models::FluxTransformer2DModel& transformer, const models::FluxTransformerInput& input) {
  FirstNonFinite first;
  first.see("the step before", "latents", input.hidden_states);
  first.see("text_encoder_2", "prompt_embeds", input.encoder_hidden_states);
  first.see("text_encoder", "pooled_prompt_embeds", input.pooled_projections);
  auto previous = transformer.set_block_observer([&](std::string_view module, std::string_view tensor,
                                                     const at::Tensor& value) { first.see(module, tensor, value); });
  transformer.forward(input);
  transformer.set_block_observer(std::move(previous));
  return first.description();
}

std::string find_non_finite(const models::AutoencoderKlDecoder& decoder, const at::Tensor& latents) {
  FirstNonFinite first;
  first.see("the last step", "latents", latents);
  decoder.decode(latents,
                 [&](std::string_view module, const at::Tensor& value) { first.see(module, "values", value); });
  return first.description();
}

}  // namespace rtlynx::pipeline
