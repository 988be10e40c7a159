#pragma once

#include <ATen/ATen.h>

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "linear/linear.h"
#include "linear/weights.h"
#include "models/double_stream_block.h"
#include "models/embeddings.h"
#include "models/flux_blocks.h"
#include "models/rope.h"
#include "models/transformer_model.h"

namespace rtlynx::models {

/// transformer/config.json of FluxTransformer2DModel; defaults are diffusers'.
struct FluxTransformerConfig {
  int64_t in_channels = 64;   ///< of a packed latent token: 4 x the VAE's channels
  int64_t out_channels = 64;  ///< equals in_channels unless the config says otherwise
  int64_t num_layers = 19;    ///< double-stream blocks
  int64_t num_single_layers = 38;
  int64_t attention_head_dim = 128;
  int64_t num_attention_heads = 24;
  int64_t joint_attention_dim = 4096;   ///< width of the T5 features
  int64_t pooled_projection_dim = 768;  ///< width of the pooled CLIP features
  bool guidance_embeds = false;
  std::array<int64_t, 3> axes_dims_rope = {16, 56, 56};

  /// Channels of the residual stream.
  int64_t dim() const { return num_attention_heads * attention_head_dim; }
  /// Throws kBadConfig where a value is out of bounds or the rotary axes do not add up to attention_head_dim,
  /// kUnsupported for a patch_size other than 1.
  static FluxTransformerConfig parse(const io::Config& config);
};

/// One forward's inputs. Tensors are in the model's dtype and on its device unless noted.
struct FluxTransformerInput {
  at::Tensor hidden_states;          ///< [B, height * width, in_channels], packed latents, row-major
  at::Tensor encoder_hidden_states;  ///< [B, S_text, joint_attention_dim]
  at::Tensor pooled_projections;     ///< [B, pooled_projection_dim]
  /// [B], 0 to 1; cast to the model's dtype and then multiplied by 1000, so that in bf16 it keeps 8 significant bits,
  /// as in diffusers.
  at::Tensor timestep;
  /// [B], treated like timestep; given exactly where the config has guidance_embeds.
  std::optional<at::Tensor> guidance;
  int64_t height = 0;  ///< rows of tokens
  int64_t width = 0;
};

/// diffusers' FluxTransformer2DModel. Not thread-safe (it keeps rotary tables per size).
class FluxTransformer2DModel : public ObservedModel {
 public:
  FluxTransformer2DModel(const FluxTransformerConfig& config, Weights& weights);
  /// Reads `<folder>/config.json` and the weights beside it; refuses tensors that the model does not have.
  static FluxTransformer2DModel load(const std::filesystem::path& folder, const Placement& placement);

  /// Returns the prediction [B, height * width, out_channels]. Throws kInvalidArgument for inputs of other shapes.
  at::Tensor forward(const FluxTransformerInput& input);

  /// The replaceable linears, named by diffusers' module paths, in a fixed order: for every transformer_blocks.N
  ///   attn.to_q, to_k, to_v, to_out.0, add_q_proj, add_k_proj, add_v_proj, to_add_out,
  ///   ff.net.0.proj, ff.net.2, ff_context.net.0.proj, ff_context.net.2,
  /// then for every single_transformer_blocks.N attn.to_q, to_k, to_v, proj_mlp, proj_out. The pointers stay valid
  /// until the model is moved or destroyed.
  std::vector<Linear*> sparse_linears();

  /// The tables of [text, image] that a model of this config and placement uses.
  static RopeTables rope_tables(const FluxTransformerConfig& config, const Placement& placement);

  const FluxTransformerConfig& config() const { return config_; }
  const Placement& placement() const { return placement_; }

 private:
  void check(const FluxTransformerInput& input) const;
  at::Tensor conditioning_vector(const FluxTransformerInput& input) const;

  FluxTransformerConfig config_;
  Placement placement_;
  RopeTables rope_;
  TimeTextEmbed time_text_embed_;
  DenseLinear context_embedder_, x_embedder_;
  std::vector<DoubleStreamBlock> blocks_;
  std::vector<FluxSingleTransformerBlock> single_blocks_;
  DenseLinear norm_out_, proj_out_;
};

}  // namespace rtlynx::models
