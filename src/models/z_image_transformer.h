#pragma once

#include <ATen/ATen.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "io/json.h"
#include "linear/linear.h"
#include "linear/weights.h"
#include "models/dense_linear.h"
#include "models/embeddings.h"
#include "models/rms_norm.h"
#include "models/rope.h"
#include "models/transformer_model.h"
#include "models/z_image_blocks.h"

namespace rtlynx::models {

/// transformer/config.json of ZImageTransformer2DModel; defaults are diffusers'.
struct ZImageTransformerConfig {
  int64_t patch_size = 2;  ///< the one entry of all_patch_size
  int64_t in_channels = 16;
  int64_t dim = 3840;
  int64_t n_layers = 30;
  int64_t n_refiner_layers = 2;  ///< of image and text alike
  int64_t n_heads = 30;
  double norm_eps = 1e-5;
  bool qk_norm = true;
  int64_t cap_feat_dim = 2560;  ///< width of the text features
  double rope_theta = 256.0;
  double t_scale = 1000.0;
  std::array<int64_t, 3> axes_dims = {32, 48, 48};
  std::array<int64_t, 3> axes_lens = {1024, 512, 512};  ///< positions on an axis stay below

  int64_t head_dim() const { return dim / n_heads; }
  /// Of the SwiGLU: 8/3 of dim, rounded down.
  int64_t mlp_dim() const { return static_cast<int64_t>(static_cast<double>(dim) / 3.0 * 8.0); }
  /// Width of the conditioning vector.
  int64_t adaln_dim() const { return dim < 256 ? dim : 256; }
  /// Of an image token.
  int64_t token_channels() const { return patch_size * patch_size * in_channels; }
  /// Throws kBadConfig where a value is out of bounds, n_heads does not divide dim or the rotary axes do not add up to
  /// a head's channels; kUnsupported for siglip_feat_dim (Omni), several patch sizes and patches over several frames.
  static ZImageTransformerConfig parse(const io::Config& config);
};

/// One forward's inputs, one entry per image. Tensors are in the model's dtype and on its device unless noted.
struct ZImageTransformerInput {
  std::vector<at::Tensor> latents;    ///< each [in_channels, height, width], multiples of patch_size; sizes may differ
  std::vector<at::Tensor> cap_feats;  ///< each [tokens, cap_feat_dim], at least one token; lengths may differ
  at::Tensor timestep;                ///< fp32 [B], 0 (noise) to 1 (image): 1 - sigma
};

/// diffusers' ZImageTransformer2DModel for text to image. Not thread-safe (it keeps rotary tables per size).
class ZImageTransformer2DModel : public ObservedModel {
 public:
  ZImageTransformer2DModel(const ZImageTransformerConfig& config, Weights& weights);
  /// Reads `<folder>/config.json` and the weights beside it; refuses tensors that the model does not have.
  static ZImageTransformer2DModel load(const std::filesystem::path& folder, const Placement& placement);

  /// Returns the prediction for each image, [in_channels, height, width] (of the opposite sign to what the scheduler
  /// takes, as in diffusers). Throws kInvalidArgument for inputs of other shapes and for positions beyond axes_lens.
  std::vector<at::Tensor> forward(const ZImageTransformerInput& input);

  /// The replaceable linears, named by diffusers' module paths, in a fixed order: for every noise_refiner.N, then every
  /// context_refiner.N, then every layers.N
  ///   attention.to_q, to_k, to_v, to_out.0, feed_forward.w1, w2, w3.
  /// The pointers stay valid until the model is moved or destroyed.
  std::vector<Linear*> sparse_linears();

  /// The tables of [image, its pads, text with pads] that a model of this config and placement uses; a grid's `text`
  /// counts the pads.
  static RopeTables rope_tables(const ZImageTransformerConfig& config, const Placement& placement);

  const ZImageTransformerConfig& config() const { return config_; }
  const Placement& placement() const { return placement_; }

 private:
  struct Sequences;
  /// Of one kind of token: the blocks of a refiner, run on the padded batch.
  at::Tensor refine(const char* name, const std::vector<ZImageTransformerBlock>& blocks, const Sequences& sequences,
                    const at::Tensor& adaln) const;
  void check(const ZImageTransformerInput& input) const;
  TokenGrid grid(const at::Tensor& latents, const at::Tensor& cap_feats) const;
  at::Tensor predict(const at::Tensor& x, const at::Tensor& adaln) const;

  ZImageTransformerConfig config_;
  Placement placement_;
  RopeTables rope_;
  EmbedderMlp t_embedder_;
  DenseLinear x_embedder_;
  RmsNorm cap_norm_;
  DenseLinear cap_embedder_;
  at::Tensor x_pad_token_, cap_pad_token_;  ///< [1, dim]
  std::vector<ZImageTransformerBlock> noise_refiner_, context_refiner_, layers_;
  DenseLinear final_modulation_, final_linear_;
};

}  // namespace rtlynx::models
