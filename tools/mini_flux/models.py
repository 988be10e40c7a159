"""Configurations of the pipeline's parts: FLUX.1-dev's classes, made small."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from .scenes import IMAGE_SIZE
from .vocabulary import CLIP_LENGTH, T5_LENGTH

T5_WIDTH = 256
CLIP_WIDTH = 128
LATENT_CHANNELS = 16
LATENT_SIZE = IMAGE_SIZE // 8
GRID = LATENT_SIZE // 2  # tokens per side
TOKENS = GRID * GRID
TOKEN_CHANNELS = 4 * LATENT_CHANNELS
# The encoder's posterior has one fixed width: the decoder learns to bear that much noise in latents,
# and the latent space stays smooth, without a weight of the KL term to tune.
POSTERIOR_STD = 0.1


def build_autoencoder() -> AutoencoderKL:
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
        scaling_factor=1.0,  # measured after training
        shift_factor=0.0,
        force_upcast=False,
    )
    with torch.no_grad():  # the log variance is a constant
        vae.encoder.conv_out.weight[LATENT_CHANNELS:] = 0
        vae.encoder.conv_out.bias[LATENT_CHANNELS:] = 2 * torch.tensor(POSTERIOR_STD).log()
    return vae


def build_transformer() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=TOKEN_CHANNELS,
        num_layers=3,
        num_single_layers=6,
        attention_head_dim=64,
        num_attention_heads=4,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(16, 24, 24),
    )


def initialise_transformer(model: FluxTransformer2DModel) -> None:
    """Blocks start as identities (zero gates) and the output at zero: high learning rates stay stable."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        modulation = name.endswith((".norm.linear", ".norm1.linear", ".norm1_context.linear", "norm_out.linear"))
        if modulation or name == "proj_out":
            nn.init.zeros_(module.weight)
    for module in model.time_text_embed.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)


def build_t5(vocabulary: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=vocabulary,
        d_model=T5_WIDTH,
        d_kv=64,
        d_ff=512,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        attn_implementation="eager",  # its bias is trained, which the fused kernels do not support
    )
    model = T5EncoderModel(config)
    _point_heads(model)
    return model


def _point_heads(t5: T5EncoderModel) -> None:
    """Heads that look ahead, behind, near and anywhere, by the start of the table of relative positions.

    The table is added to the attention scores. From T5's own start (deviation 0.06) AdamW has to walk it
    to several units in steps of the learning rate, thousands of them, before a name can tell whether
    "left of" comes before or after it. Buckets 0 to 15 are distances backwards, 16 to 31 forwards.
    """
    table = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    distance, ahead = torch.arange(32) % 16, torch.arange(32) >= 16
    fading = 2 - 0.3 * distance
    with torch.no_grad():
        table[:, 0] = torch.where(ahead, fading, -4.0)
        table[:, 1] = torch.where(~ahead & (distance > 0), fading, -4.0)
        table[:, 2] = 2.0 - distance
        table[:, 3] = 0


def build_clip(vocabulary: int) -> CLIPTextModel:
    """`vocabulary` ends with the start and the end marker."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=CLIP_WIDTH,
        intermediate_size=4 * CLIP_WIDTH,
        projection_dim=CLIP_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CLIP_LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,  # the pooled vector is read at its first place
        pad_token_id=vocabulary - 1,
    )
    model = CLIPTextModel(config)
    # Waves, three times as strong as the names at first: the same word first or second is told apart from
    # the start. A wave length from 4 to 400 tokens for every pair of channels.
    phase = torch.arange(CLIP_LENGTH)[:, None] * 1.5 * 100 ** (-torch.arange(CLIP_WIDTH // 2) / (CLIP_WIDTH // 2))
    with torch.no_grad():
        waves = torch.cat([phase.sin(), phase.cos()], 1)
        model.embeddings.position_embedding.weight.copy_(0.06 * 2**0.5 * waves)
    return model


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def pack(latents: Tensor) -> Tensor:
    """[B, 16, 32, 32] -> [B, 256, 64]; a token's channels are (channel, dy, dx), as in FluxPipeline."""
    split = latents.unflatten(2, (GRID, 2)).unflatten(4, (GRID, 2))  # b c gy dy gx dx
    return split.permute(0, 2, 4, 1, 3, 5).reshape(len(latents), TOKENS, TOKEN_CHANNELS)


def unpack(tokens: Tensor) -> Tensor:
    split = tokens.view(len(tokens), GRID, GRID, LATENT_CHANNELS, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return split.reshape(len(tokens), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)


def position_ids(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Ids of image tokens (0, row, column) and of text tokens (0, 0, 0)."""
    rows = torch.arange(GRID, device=device, dtype=dtype)
    image = torch.zeros(GRID, GRID, 3, device=device, dtype=dtype)
    image[..., 1], image[..., 2] = rows[:, None], rows[None, :]
    return image.view(TOKENS, 3), torch.zeros(T5_LENGTH, 3, device=device, dtype=dtype)


class TextEncoders(nn.Module):
    """Both encoders as FluxPipeline calls them: no attention mask, CLIP's pooled vector only."""

    def __init__(self, clip_vocabulary: int, t5_vocabulary: int) -> None:
        super().__init__()
        self.clip = build_clip(clip_vocabulary)
        self.t5 = build_t5(t5_vocabulary)

    def forward(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.t5(input_ids=t5_ids).last_hidden_state, self.clip(input_ids=clip_ids).pooler_output
