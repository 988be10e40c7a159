"""A FluxPipeline folder of a few hundred kilobytes with random weights and vocabularies of its own."""

import json

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from image_models import randomise
from test_tokenizer_parity import train_clip, train_t5
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

CLASSES = {
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "T5EncoderModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "T5TokenizerFast"),
    "transformer": ("diffusers", "FluxTransformer2DModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}


def text_encoders(folder):
    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    end = vocabulary["<|endoftext|>"]
    clip = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=end,
        pad_token_id=end,
    )
    t5 = T5Config(
        vocab_size=1200, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return CLIPTextModel(clip), T5EncoderModel(t5)


def build_vae():
    """The last convolution is scaled so that the pictures of random weights use the whole range of grey."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=48,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )
    randomise(vae, seed=21)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(0.5)
    return vae


def build(folder, guidance_embeds=True):
    """Writes the folder; returns it."""
    folder.mkdir()
    index = {"_class_name": "FluxPipeline", **{name: list(entry) for name, entry in CLASSES.items()}}
    (folder / "model_index.json").write_text(json.dumps(index))
    train_clip(folder / "tokenizer")
    train_t5(folder / "tokenizer_2")
    clip, t5 = text_encoders(folder)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    parts = {
        "scheduler": scheduler,
        "text_encoder": randomise(clip, seed=22),
        "text_encoder_2": randomise(t5, seed=23),
        "transformer": randomise(transformer, seed=24),
        "vae": build_vae(),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder
