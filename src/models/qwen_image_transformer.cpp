#include "models/qwen_image_transformer.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>

#include "models/modulation.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr double kRopeTheta = 10000.0;
constexpr int64_t kMaxPosition = 4096;  // the length of diffusers' tables, on either side of 0
constexpr RmsNormKind kRmsNorm = {1e-6, RmsRounding::kTwice};
constexpr DoubleStreamBlock::Names kBlockNames = {"img_mod.1", "txt_mod.1", "img_mlp", "txt_mlp"};

int64_t first_text_position(int64_t height, int64_t width) {
  return std::max(height / 2, width / 2);
}

/// The image is centred: an odd number of rows or columns has one more below 0. Text goes on behind it, on the
/// diagonal.
at::Tensor positions(const TokenGrid& grid) {
  const int64_t first_row = -(grid.height - grid.height / 2);
  const int64_t first_col = -(grid.width - grid.width / 2);
  const int64_t text = first_text_position(grid.height, grid.width);
  const at::Tensor diagonal = at::arange(text, text + grid.text, at::kDouble).unsqueeze(1).expand({grid.text, 3});
  return at::cat({diagonal, grid_positions(0, first_row, grid.height, first_col, grid.width)});
}

void refuse_variants(const io::Config& config) {
  for (const char* key : {"guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"}) {
    if (config.boolean(key, false)) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: {} is true, but only Qwen-Image's text-to-image models are implemented",
                              config.origin(), key));
    }
  }
}

/// attend()'s mask over [text, image]: a prompt's own tokens and the whole image.
at::Tensor joint_mask(const std::optional<at::Tensor>& text, int64_t image_tokens) {
  if (!text) return {};
  const at::Tensor image = at::ones({text->size(0), image_tokens}, text->options());
  return at::cat({*text, image}, 1).unsqueeze(1).unsqueeze(1);
}

}  // namespace

QwenImageTransformerConfig QwenImageTransformerConfig::parse(const io::Config& config) {
  constexpr int64_t kMaxWidth = 65536;
  refuse_variants(config);
  QwenImageTransformerConfig result;
  result.patch_size = config.integer("patch_size", 1, 64, result.patch_size);
  result.in_channels = config.integer("in_channels", 1, kMaxWidth, result.in_channels);
  // null says "as in_channels" to diffusers, a missing key 16; 0 counts as null there.
  const int64_t otherwise = config.json().contains("out_channels") ? 0 : result.out_channels;
  result.out_channels = config.integer("out_channels", 0, kMaxWidth, otherwise);
  if (result.out_channels == 0) result.out_channels = result.in_channels;
  result.num_layers = config.integer("num_layers", 0, 1024, result.num_layers);
  result.attention_head_dim = config.integer("attention_head_dim", 2, 1024, result.attention_head_dim);
  result.num_attention_heads = config.integer("num_attention_heads", 1, 1024, result.num_attention_heads);
  result.joint_attention_dim = config.integer("joint_attention_dim", 1, kMaxWidth, result.joint_attention_dim);
  result.axes_dims_rope = parse_rope_axes(config, "axes_dims_rope", result.axes_dims_rope, result.attention_head_dim);
  return result;
}

QwenImageTransformer2DModel::QwenImageTransformer2DModel(const QwenImageTransformerConfig& config, Weights& weights)
    : config_(config),
      placement_(weights.placement()),
      rope_(rope_tables(config, placement_)),
      timestep_embedder_(weights, "time_text_embed.timestep_embedder", kTimestepChannels, config.dim()),
      txt_norm_(weights, "txt_norm", config.joint_attention_dim, kRmsNorm),
      img_in_(weights, "img_in", config.in_channels, config.dim()),
      txt_in_(weights, "txt_in", config.joint_attention_dim, config.dim()),
      norm_out_(weights, "norm_out.linear", config.dim(), 2 * config.dim()),
      proj_out_(weights, "proj_out", config.dim(), config.token_channels()) {
  const AttentionSettings attention = {config.num_attention_heads, config.attention_head_dim, true, kRmsNorm};
  for (int64_t i = 0; i < config.num_layers; ++i) {
    blocks_.emplace_back(weights, fmt::format("transformer_blocks.{}", i), kBlockNames, attention);
  }
}

RopeTables QwenImageTransformer2DModel::rope_tables(const QwenImageTransformerConfig& config,
                                                    const Placement& placement) {
  return {{config.axes_dims_rope, kRopeTheta, RopeAngles::kFloat}, positions, placement.device};
}

QwenImageTransformer2DModel QwenImageTransformer2DModel::load(const std::filesystem::path& folder,
                                                              const Placement& placement) {
  return load_transformer<QwenImageTransformer2DModel, QwenImageTransformerConfig>(folder, placement);
}

void QwenImageTransformer2DModel::check(const QwenImageTransformerInput& input) const {
  expect_token_grid(input.height, input.width, input.hidden_states, input.encoder_hidden_states);
  const int64_t batch = input.hidden_states.size(0);
  const int64_t text_tokens = std::max<int64_t>(input.encoder_hidden_states.size(1), 1);
  const int64_t last_position = first_text_position(input.height, input.width) + text_tokens - 1;
  if (last_position >= kMaxPosition) {  // the image ends before the text begins
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("transformer input: a grid of {}x{} tokens and {} text tokens reach position {}, expected "
                            "positions below {}",
                            input.height, input.width, text_tokens, last_position, kMaxPosition));
  }
  expect_shape("hidden_states", input.hidden_states, {batch, input.height * input.width, config_.in_channels});
  expect_shape("encoder_hidden_states", input.encoder_hidden_states, {batch, text_tokens, config_.joint_attention_dim});
  expect_shape("timestep", input.timestep, {batch});
  if (!input.encoder_hidden_states_mask) return;
  expect_shape("encoder_hidden_states_mask", *input.encoder_hidden_states_mask, {batch, text_tokens});
  if (input.encoder_hidden_states_mask->scalar_type() != at::kBool) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("transformer input encoder_hidden_states_mask: got {}, expected Bool",
                            at::toString(input.encoder_hidden_states_mask->scalar_type())));
  }
}

at::Tensor QwenImageTransformer2DModel::conditioning_vector(const at::Tensor& timestep) const {
  const at::Tensor sinusoids = timestep_sinusoids(timestep.to(placement_.dtype), kTimestepChannels, 1000.0);
  return timestep_embedder_(sinusoids.to(placement_.dtype));
}

at::Tensor QwenImageTransformer2DModel::forward(const QwenImageTransformerInput& input) {
  const c10::InferenceMode inference;
  check(input);
  at::Tensor hidden_states = img_in_(input.hidden_states);
  at::Tensor encoder_hidden_states = txt_in_(txt_norm_(input.encoder_hidden_states));
  const at::Tensor temb = conditioning_vector(input.timestep);
  observe("img_in", "hidden_states", hidden_states);
  observe("txt_in", "encoder_hidden_states", encoder_hidden_states);
  observe("time_text_embed", "temb", temb);

  const BlockConditioning conditioning = {at::silu(temb),
                                          rope_.at({encoder_hidden_states.size(1), input.height, input.width}),
                                          joint_mask(input.encoder_hidden_states_mask, hidden_states.size(1))};
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i](hidden_states, encoder_hidden_states, conditioning);
    if (!is_observed()) continue;
    observe(fmt::format("transformer_blocks.{}", i), "encoder_hidden_states", encoder_hidden_states);
    observe(fmt::format("transformer_blocks.{}", i), "hidden_states", hidden_states);
  }
  const auto modulation = norm_out_(conditioning.silu_temb).chunk(2, 1);  // scale, then shift, unlike in the blocks
  const at::Tensor output = proj_out_(modulated_layer_norm(hidden_states, modulation[0], modulation[1]));
  observe("proj_out", "hidden_states", output);
  return output;
}

std::vector<Linear*> QwenImageTransformer2DModel::sparse_linears() {
  std::vector<Linear*> linears;
  for (auto& block : blocks_) block.append_linears(linears);
  return linears;
}

}  // namespace rtlynx::models
