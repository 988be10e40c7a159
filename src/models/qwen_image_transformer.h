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
#include "models/dense_linear.h"
#include "models/double_stream_block.h"
#include "models/embeddings.h"
#include "models/rms_norm.h"
#include "models/rope.h"
#include "models/transformer_model.h"

namespace rtlynx::models {

/// transformer/config.json of QwenImageTransformer2DModel; defaults are diffusers' and those of Qwen-Image and
/// Qwen-Image-2512.
struct QwenImageTransformerConfig {
  int64_t patch_size = 2;     ///< only the output's width depends on it: latents come packed
  int64_t in_channels = 64;   ///< of a packed latent token: 4 x the VAE's channels
  int64_t out_channels = 16;  ///< of a latent pixel
  int64_t num_layers = 60;
  int64_t attention_head_dim = 128;
  int64_t num_attention_heads = 24;
  int64_t joint_attention_dim = 3584;  ///< width of the text features
  std::array<int64_t, 3> axes_dims_rope = {16, 56, 56};

  /// Channels of the residual stream.
  int64_t dim() const { return num_attention_heads * attention_head_dim; }
  /// Of an output token.
  int64_t token_channels() const { return patch_size * patch_size * out_channels; }
  /// Throws kBadConfig where a value is out of bounds or the rotary axes do not add up to attention_head_dim,
  /// kUnsupported for the variants of editing and layered models (zero_cond_t, use_additional_t_cond,
  /// use_layer3d_rope) and for guidance_embeds, with which diffusers 0.42.1's own forward fails.
  static QwenImageTransformerConfig parse(const io::Config& config);
};

/// One forward's inputs. Tensors are in the model's dtype and on its device unless noted.
struct QwenImageTransformerInput {
  at::Tensor hidden_states;          ///< [B, height * width, in_channels], packed latents, row-major
  at::Tensor encoder_hidden_states;  ///< [B, S_text, joint_attention_dim], at least one token
  /// Bool [B, S_text], true where a text token is a prompt's own. diffusers' pipeline leaves it out where all are true,
  /// which keeps the faster attention kernels in reach.
  std::optional<at::Tensor> encoder_hidden_states_mask;
  /// [B], 0 to 1; cast to the model's dtype, then to fp32 and multiplied by 1000 there.
  at::Tensor timestep;
  int64_t height = 0;  ///< rows of tokens
  int64_t width = 0;
};

/// diffusers' QwenImageTransformer2DModel for text to image. Not thread-safe (it keeps rotary tables per size).
class QwenImageTransformer2DModel : public ObservedModel {
 public:
  QwenImageTransformer2DModel(const QwenImageTransformerConfig& config, Weights& weights);
  /// Reads `<folder>/config.json` and the weights beside it; refuses tensors that the model does not have.
  static QwenImageTransformer2DModel load(const std::filesystem::path& folder, const Placement& placement);

  /// Returns the prediction [B, height * width, config().token_channels()]. Throws kInvalidArgument for inputs of other
  /// shapes and for positions of 4,096 or more, where diffusers' rotary tables end.
  at::Tensor forward(const QwenImageTransformerInput& input);

  /// The replaceable linears, named by diffusers' module paths, in a fixed order: for every transformer_blocks.N
  ///   attn.to_q, to_k, to_v, to_out.0, add_q_proj, add_k_proj, add_v_proj, to_add_out,
  ///   img_mlp.net.0.proj, img_mlp.net.2, txt_mlp.net.0.proj, txt_mlp.net.2.
  /// The pointers stay valid until the model is moved or destroyed.
  std::vector<Linear*> sparse_linears();

  /// The tables of [text, image] that a model of this config and placement uses.
  static RopeTables rope_tables(const QwenImageTransformerConfig& config, const Placement& placement);

  const QwenImageTransformerConfig& config() const { return config_; }
  const Placement& placement() const { return placement_; }

 private:
  void check(const QwenImageTransformerInput& input) const;
  at::Tensor conditioning_vector(const at::Tensor& timestep) const;

  QwenImageTransformerConfig config_;
  Placement placement_;
  RopeTables rope_;
  EmbedderMlp timestep_embedder_;
  RmsNorm txt_norm_;
  DenseLinear img_in_, txt_in_;
  std::vector<DoubleStreamBlock> blocks_;
  DenseLinear norm_out_, proj_out_;
};

}  // namespace rtlynx::models
