#include "models/flux_transformer.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include "models/modulation.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr double kRopeTheta = 10000.0;

constexpr DoubleStreamBlock::Names kBlockNames = {"norm1.linear", "norm1_context.linear", "ff", "ff_context"};

/// Text at (0, 0, 0), then the image at (0, row, col). diffusers hands positions over in the embeddings' dtype: exact
/// up to 256 in bf16.
RopeTables::Positions positions(at::ScalarType dtype) {
  return [dtype](const TokenGrid& grid) {
    const at::Tensor text = at::zeros({grid.text, 3}, at::kDouble);
    return at::cat({text, grid_positions(0, 0, grid.height, 0, grid.width)}).to(dtype).to(at::kDouble);
  };
}

}  // namespace

FluxTransformerConfig FluxTransformerConfig::parse(const io::Config& config) {
  constexpr int64_t kMaxWidth = 65536;
  constexpr int64_t kMaxLayers = 1024;
  FluxTransformerConfig result;
  const int64_t patch_size = config.integer("patch_size", 1, 64, 1);
  if (patch_size != 1) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: patch_size is {}, but FluxPipeline packs latents itself and knows only 1",
                            config.origin(), patch_size));
  }
  result.in_channels = config.integer("in_channels", 1, kMaxWidth, result.in_channels);
  result.out_channels = config.integer("out_channels", 1, kMaxWidth, result.in_channels);
  result.num_layers = config.integer("num_layers", 0, kMaxLayers, result.num_layers);
  result.num_single_layers = config.integer("num_single_layers", 0, kMaxLayers, result.num_single_layers);
  result.attention_head_dim = config.integer("attention_head_dim", 2, 1024, result.attention_head_dim);
  result.num_attention_heads = config.integer("num_attention_heads", 1, 1024, result.num_attention_heads);
  result.joint_attention_dim = config.integer("joint_attention_dim", 1, kMaxWidth, result.joint_attention_dim);
  result.pooled_projection_dim = config.integer("pooled_projection_dim", 1, kMaxWidth, result.pooled_projection_dim);
  result.guidance_embeds = config.boolean("guidance_embeds", result.guidance_embeds);
  result.axes_dims_rope = parse_rope_axes(config, "axes_dims_rope", result.axes_dims_rope, result.attention_head_dim);
  return result;
}

FluxTransformer2DModel::FluxTransformer2DModel(const FluxTransformerConfig& config, Weights& weights)
    : config_(config),
      placement_(weights.placement()),
      rope_(rope_tables(config, placement_)),
      time_text_embed_(weights, "time_text_embed", config.dim(), config.pooled_projection_dim, config.guidance_embeds),
      context_embedder_(weights, "context_embedder", config.joint_attention_dim, config.dim()),
      x_embedder_(weights, "x_embedder", config.in_channels, config.dim()),
      norm_out_(weights, "norm_out.linear", config.dim(), 2 * config.dim()),
      proj_out_(weights, "proj_out", config.dim(), config.out_channels) {
  const AttentionSettings attention = {config.num_attention_heads, config.attention_head_dim};
  for (int64_t i = 0; i < config.num_layers; ++i) {
    blocks_.emplace_back(weights, fmt::format("transformer_blocks.{}", i), kBlockNames, attention);
  }
  for (int64_t i = 0; i < config.num_single_layers; ++i) {
    single_blocks_.emplace_back(weights, fmt::format("single_transformer_blocks.{}", i), attention);
  }
}

RopeTables FluxTransformer2DModel::rope_tables(const FluxTransformerConfig& config, const Placement& placement) {
  return {{config.axes_dims_rope, kRopeTheta, RopeAngles::kDouble}, positions(placement.dtype), placement.device};
}

FluxTransformer2DModel FluxTransformer2DModel::load(const std::filesystem::path& folder, const Placement& placement) {
  return load_transformer<FluxTransformer2DModel, FluxTransformerConfig>(folder, placement);
}

void FluxTransformer2DModel::check(const FluxTransformerInput& input) const {
  expect_token_grid(input.height, input.width, input.hidden_states, input.encoder_hidden_states);
  const int64_t batch = input.hidden_states.size(0);
  expect_shape("hidden_states", input.hidden_states, {batch, input.height * input.width, config_.in_channels});
  expect_shape("encoder_hidden_states", input.encoder_hidden_states,
               {batch, input.encoder_hidden_states.size(1), config_.joint_attention_dim});
  expect_shape("pooled_projections", input.pooled_projections, {batch, config_.pooled_projection_dim});
  expect_shape("timestep", input.timestep, {batch});
  if (config_.guidance_embeds) {
    expect_shape("guidance", input.guidance.value_or(at::Tensor()), {batch});
  } else if (input.guidance) {
    throw Error(ErrorCode::kInvalidArgument,
                "transformer input guidance: given to a model without a guidance embedding");
  }
}

at::Tensor FluxTransformer2DModel::conditioning_vector(const FluxTransformerInput& input) const {
  const auto thousandfold = [&](const at::Tensor& t) { return t.to(placement_.dtype) * 1000; };
  std::optional<at::Tensor> guidance;
  if (input.guidance) guidance = thousandfold(*input.guidance);
  return time_text_embed_(thousandfold(input.timestep), guidance, input.pooled_projections);
}

at::Tensor FluxTransformer2DModel::forward(const FluxTransformerInput& input) {
  const c10::InferenceMode inference;
  check(input);
  at::Tensor hidden_states = x_embedder_(input.hidden_states);
  const at::Tensor temb = conditioning_vector(input);
  at::Tensor encoder_hidden_states = context_embedder_(input.encoder_hidden_states);
  observe("x_embedder", "hidden_states", hidden_states);
  observe("time_text_embed", "temb", temb);
  observe("context_embedder", "encoder_hidden_states", encoder_hidden_states);

  const int64_t text_tokens = encoder_hidden_states.size(1);
  const int64_t image_tokens = hidden_states.size(1);
  const BlockConditioning conditioning = {at::silu(temb), rope_.at({text_tokens, input.height, input.width}), {}};
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i](hidden_states, encoder_hidden_states, conditioning);
    if (!is_observed()) continue;
    observe(fmt::format("transformer_blocks.{}", i), "encoder_hidden_states", encoder_hidden_states);
    observe(fmt::format("transformer_blocks.{}", i), "hidden_states", hidden_states);
  }
  // The single blocks work on [text, image]; it stays joined between them.
  at::Tensor joined = at::cat({encoder_hidden_states, hidden_states}, 1);
  for (std::size_t i = 0; i < single_blocks_.size(); ++i) {
    joined = single_blocks_[i](joined, conditioning);
    if (is_observed()) observe(fmt::format("single_transformer_blocks.{}", i), "hidden_states", joined);
  }
  hidden_states = joined.narrow(1, text_tokens, image_tokens);

  const auto modulation = norm_out_(conditioning.silu_temb).chunk(2, 1);  // scale, then shift, unlike in the blocks
  const at::Tensor output = proj_out_(modulated_layer_norm(hidden_states, modulation[0], modulation[1]));
  observe("proj_out", "hidden_states", output);
  return output;
}

std::vector<Linear*> FluxTransformer2DModel::sparse_linears() {
  std::vector<Linear*> linears;
  for (auto& block : blocks_) block.append_linears(linears);
  for (auto& block : single_blocks_) block.append_linears(linears);
  return linears;
}

}  // namespace rtlynx::models
