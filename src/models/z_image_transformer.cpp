#include "models/z_image_transformer.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>

#include "models/modulation.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr int64_t kTokenMultiple = 32;  // image and text are each filled up to it with a learned pad token

int64_t padded(int64_t tokens) {
  return (tokens + kTokenMultiple - 1) / kTokenMultiple * kTokenMultiple;
}

/// `grid.text` counts the pads of the text, which have positions like words; those of the image stand at (0, 0, 0).
at::Tensor positions(const TokenGrid& grid) {
  const at::Tensor image = grid_positions(static_cast<double>(grid.text + 1), 0, grid.height, 0, grid.width);
  const at::Tensor image_pads = at::zeros({padded(grid.image()) - grid.image(), 3}, at::kDouble);
  const at::Tensor text = at::zeros({grid.text, 3}, at::kDouble);
  text.select(1, 0).copy_(at::arange(1, grid.text + 1, at::kDouble));
  return at::cat({image, image_pads, text});
}

/// [C, H, W] -> [tokens, patch^2 C], row-major, channels fastest.
at::Tensor patchify(const at::Tensor& latents, int64_t patch) {
  const int64_t rows = latents.size(1) / patch;
  const int64_t cols = latents.size(2) / patch;
  return latents.reshape({latents.size(0), rows, patch, cols, patch})
      .permute({1, 3, 2, 4, 0})
      .reshape({rows * cols, -1});
}

/// The reverse: [tokens, patch^2 C] -> [C, H, W].
at::Tensor unpatchify(const at::Tensor& tokens, const TokenGrid& grid, int64_t patch) {
  const int64_t channels = tokens.size(1) / (patch * patch);
  return tokens.reshape({grid.height, grid.width, patch, patch, channels})
      .permute({4, 0, 2, 1, 3})
      .reshape({channels, grid.height * patch, grid.width * patch});
}

/// One image's embedded tokens [tokens, dim], filled up to a multiple of 32.
at::Tensor with_pads(const at::Tensor& tokens, const at::Tensor& pad_token) {
  return at::cat({tokens, pad_token.expand({padded(tokens.size(0)) - tokens.size(0), -1})});
}

/// attend()'s mask of sequences filled up to the longest; undefined where all are as long.
at::Tensor length_mask(const std::vector<at::Tensor>& sequences, at::Device device) {
  std::vector<int64_t> lengths;
  for (const at::Tensor& sequence : sequences) lengths.push_back(sequence.size(0));
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  if (std::all_of(lengths.begin(), lengths.end(), [&](int64_t length) { return length == longest; })) return {};
  const at::Tensor mask = at::arange(longest).unsqueeze(0) < at::tensor(lengths).unsqueeze(1);
  return mask.to(device).unsqueeze(1).unsqueeze(1);
}

}  // namespace

/// Sequences of different lengths as one batch; what lies beyond a sequence's end is never read back.
struct ZImageTransformer2DModel::Sequences {
  at::Tensor x;     ///< [B, longest, dim]
  at::Tensor rope;  ///< [B, longest, head_dim / 2]
  at::Tensor mask;

  Sequences(const std::vector<at::Tensor>& tokens, const std::vector<at::Tensor>& tables)
      : x(at::pad_sequence(tokens, true)),
        rope(at::pad_sequence(tables, true)),
        mask(length_mask(tokens, tokens.front().device())) {}
};

ZImageTransformer2DModel::ZImageTransformer2DModel(const ZImageTransformerConfig& config, Weights& weights)
    : config_(config),
      placement_(weights.placement()),
      rope_(rope_tables(config, placement_)),
      t_embedder_(weights, "t_embedder.mlp.0", "t_embedder.mlp.2", kTimestepChannels, 1024, config.adaln_dim()),
      x_embedder_(weights, fmt::format("all_x_embedder.{}-1", config.patch_size), config.token_channels(), config.dim),
      cap_norm_(weights, "cap_embedder.0", config.cap_feat_dim, {config.norm_eps, RmsRounding::kTwice}),
      cap_embedder_(weights, "cap_embedder.1", config.cap_feat_dim, config.dim),
      x_pad_token_(weights.take("x_pad_token", {1, config.dim})),
      cap_pad_token_(weights.take("cap_pad_token", {1, config.dim})),
      final_modulation_(weights, fmt::format("all_final_layer.{}-1.adaLN_modulation.1", config.patch_size),
                        config.adaln_dim(), config.dim),
      final_linear_(weights, fmt::format("all_final_layer.{}-1.linear", config.patch_size), config.dim,
                    config.token_channels()) {
  constexpr RmsNormKind kQkNorm = {1e-5, RmsRounding::kTwice};  // whatever norm_eps says
  ZImageBlockSettings settings = {
      {config.n_heads, config.head_dim(), false, {}}, config.mlp_dim(), config.adaln_dim(), config.norm_eps};
  if (config.qk_norm) settings.attention.qk_norm = kQkNorm;
  for (int64_t i = 0; i < config.n_refiner_layers; ++i) {
    noise_refiner_.emplace_back(weights, fmt::format("noise_refiner.{}", i), settings, true);
    context_refiner_.emplace_back(weights, fmt::format("context_refiner.{}", i), settings, false);
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    layers_.emplace_back(weights, fmt::format("layers.{}", i), settings, true);
  }
}

RopeTables ZImageTransformer2DModel::rope_tables(const ZImageTransformerConfig& config, const Placement& placement) {
  return {{config.axes_dims, config.rope_theta, RopeAngles::kRoundedDouble}, positions, placement.device};
}

ZImageTransformer2DModel ZImageTransformer2DModel::load(const std::filesystem::path& folder,
                                                        const Placement& placement) {
  return load_transformer<ZImageTransformer2DModel, ZImageTransformerConfig>(folder, placement);
}

TokenGrid ZImageTransformer2DModel::grid(const at::Tensor& latents, const at::Tensor& cap_feats) const {
  return {padded(cap_feats.size(0)), latents.size(1) / config_.patch_size, latents.size(2) / config_.patch_size};
}

void ZImageTransformer2DModel::check(const ZImageTransformerInput& input) const {
  const std::size_t batch = input.latents.size();
  if (batch == 0 || input.cap_feats.size() != batch) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("transformer input: got {} latents and {} cap_feats, expected as many of both, at least 1",
                            batch, input.cap_feats.size()));
  }
  expect_shape("timestep", input.timestep, {static_cast<int64_t>(batch)});
  for (std::size_t i = 0; i < batch; ++i) {
    const at::Tensor& latents = input.latents[i];
    const at::Tensor& cap_feats = input.cap_feats[i];
    if (latents.dim() != 3 || cap_feats.dim() != 2) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("transformer input: got latents[{0}] of {1} and cap_feats[{0}] of {2} dimensions, expected "
                      "3 and 2",
                      i, latents.dim(), cap_feats.dim()));
    }
    const TokenGrid size = grid(latents, cap_feats);
    expect_shape(fmt::format("latents[{}]", i), latents,
                 {config_.in_channels, std::max<int64_t>(size.height, 1) * config_.patch_size,
                  std::max<int64_t>(size.width, 1) * config_.patch_size});
    expect_shape(fmt::format("cap_feats[{}]", i), cap_feats,
                 {std::max<int64_t>(cap_feats.size(0), 1), config_.cap_feat_dim});
    if (size.text + 2 > config_.axes_lens[0] || size.height > config_.axes_lens[1] ||
        size.width > config_.axes_lens[2]) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("transformer input: {} text tokens (with pads) and a grid of {}x{} tokens, but axes_lens "
                              "allows at most {} and {}x{}",
                              size.text, size.height, size.width, config_.axes_lens[0] - 2, config_.axes_lens[1],
                              config_.axes_lens[2]));
    }
  }
}

at::Tensor ZImageTransformer2DModel::refine(const char* name, const std::vector<ZImageTransformerBlock>& blocks,
                                            const Sequences& sequences, const at::Tensor& adaln) const {
  at::Tensor x = sequences.x;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    x = blocks[i](x, {sequences.rope, sequences.mask, adaln});
    if (is_observed()) observe(fmt::format("{}.{}", name, i), "hidden_states", x);
  }
  return x;
}

at::Tensor ZImageTransformer2DModel::predict(const at::Tensor& x, const at::Tensor& adaln) const {
  const at::Tensor scale = 1 + final_modulation_(at::silu(adaln));
  return final_linear_(plain_layer_norm(x) * scale.unsqueeze(1));
}

std::vector<at::Tensor> ZImageTransformer2DModel::forward(const ZImageTransformerInput& input) {
  const c10::InferenceMode inference;
  check(input);
  const at::Tensor angles = timestep_sinusoids(input.timestep.to(at::kFloat) * config_.t_scale, kTimestepChannels);
  const at::Tensor adaln = t_embedder_(angles.to(placement_.dtype));
  observe("t_embedder", "temb", adaln);

  std::vector<TokenGrid> grids;
  std::vector<at::Tensor> tables, images, image_tables, texts, text_tables;
  for (std::size_t i = 0; i < input.latents.size(); ++i) {
    grids.push_back(grid(input.latents[i], input.cap_feats[i]));
    images.push_back(with_pads(x_embedder_(patchify(input.latents[i], config_.patch_size)), x_pad_token_));
    texts.push_back(with_pads(cap_embedder_(cap_norm_(input.cap_feats[i])), cap_pad_token_));
    tables.push_back(rope_.at(grids[i]));
    image_tables.push_back(tables[i].narrow(0, 0, images[i].size(0)));
    text_tables.push_back(tables[i].narrow(0, images[i].size(0), texts[i].size(0)));
  }
  const at::Tensor image = refine("noise_refiner", noise_refiner_, {images, image_tables}, adaln);
  const at::Tensor text = refine("context_refiner", context_refiner_, {texts, text_tables}, adaln);

  std::vector<at::Tensor> joined;
  for (std::size_t i = 0; i < grids.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    joined.push_back(at::cat({image[index].narrow(0, 0, images[i].size(0)), text[index].narrow(0, 0, grids[i].text)}));
  }
  const at::Tensor x = refine("layers", layers_, {joined, tables}, adaln);

  const at::Tensor tokens = predict(x.narrow(1, 0, image.size(1)), adaln);  // no image has rows beyond
  observe("all_final_layer", "hidden_states", tokens);
  std::vector<at::Tensor> output;
  for (std::size_t i = 0; i < grids.size(); ++i) {
    const at::Tensor own = tokens[static_cast<int64_t>(i)].narrow(0, 0, grids[i].image());
    output.push_back(unpatchify(own, grids[i], config_.patch_size));
  }
  return output;
}

std::vector<Linear*> ZImageTransformer2DModel::sparse_linears() {
  std::vector<Linear*> linears;
  for (auto* blocks : {&noise_refiner_, &context_refiner_, &layers_}) {
    for (auto& block : *blocks) block.append_linears(linears);
  }
  return linears;
}

}  // namespace rtlynx::models
