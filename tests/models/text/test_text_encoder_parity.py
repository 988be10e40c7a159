"""ClipTextModel and T5Encoder against transformers on random small configs."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

BINARY = Path(os.environ["RTLYNX_BIN_DIR"]) / "text_parity"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

CLIP = {
    "quick-gelu": dict(hidden_act="quick_gelu", eos_token_id=99),
    "gelu": dict(hidden_act="gelu", eos_token_id=99, num_attention_heads=2),
    "largest-id": dict(eos_token_id=2),
    "one-head": dict(num_attention_heads=1, num_hidden_layers=1, eos_token_id=99),
    "other-eps": dict(layer_norm_eps=1e-3, num_attention_heads=16, eos_token_id=99),
    "clip-l-head": dict(hidden_size=128, num_attention_heads=2, intermediate_size=512, eos_token_id=99),
}
T5 = {
    "gated-gelu": dict(feed_forward_proj="gated-gelu"),
    "relu": dict(feed_forward_proj="relu"),
    "gated-silu": dict(feed_forward_proj="gated-silu", layer_norm_epsilon=1e-5),
    "gelu": dict(feed_forward_proj="gelu"),
    "few-buckets": dict(feed_forward_proj="gated-gelu", relative_attention_num_buckets=6, relative_attention_max_distance=9),
    "odd-buckets": dict(feed_forward_proj="relu", relative_attention_num_buckets=13, relative_attention_max_distance=200),
    "wide-heads": dict(feed_forward_proj="gated-gelu", d_kv=24, num_heads=3),
    "t5-head": dict(feed_forward_proj="gated-gelu", d_model=128, d_kv=64, num_heads=4, d_ff=320),
}


def randomise(model, seed):
    """Every parameter off its special starting value, at a scale that keeps a deep stack from running off."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            else:
                parameter.copy_(noise * (1.0 if "embed" in name or "bias" in name or "shared" in name else parameter.shape[1] ** -0.5))
    return model.eval()


def clip_ids(batch=2, tokens=40):
    """Padded prompts: start 98, words, end 99, then end tokens up to the length; the last prompt fills it."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 98, (batch, tokens), generator=generator)
    ids[:, 0] = 98
    for row in range(batch):
        ids[row, tokens - 1 if row == batch - 1 else 5 + row :] = 99
    return ids


def t5_ids(batch=2, tokens=150):
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(3, 100, (batch, tokens), generator=generator)
    for row in range(batch - 1):
        ids[row, 7 + row] = 1
        ids[row, 8 + row :] = 0
    ids[-1, -1] = 1
    return ids


def ours(kind, folder, ids, dtype, tmp_path):
    save_file({"ids": ids.contiguous()}, tmp_path / "ids.safetensors")
    subprocess.run([BINARY, kind, folder, tmp_path / "ids.safetensors", tmp_path / "out.safetensors", dtype], check=True)
    return load_file(tmp_path / "out.safetensors")


def theirs(cls, folder, ids, dtype):
    model = cls.from_pretrained(folder, dtype=DTYPES[dtype]).eval()
    with torch.inference_mode():
        out = model(ids)
    result = {"last_hidden_state": out.last_hidden_state.float()}
    if cls is CLIPTextModel:
        result["pooled"] = out.pooler_output.float()
    return result


def relative_error(a, b):
    return ((a - b).norm() / b.norm()).item()


def compare(kind, cls, folder, ids, tmp_path):
    exact = theirs(cls, folder, ids, "fp32")
    for name, tensor in ours(kind, folder, ids, "fp32", tmp_path).items():
        assert tensor.shape == exact[name].shape
        assert relative_error(tensor, exact[name]) <= 1e-5, name
        assert ((tensor - exact[name]).abs().max() / exact[name].abs().max()).item() <= 1e-5, name
    for dtype in ("bf16", "fp16") if kind == "t5" else ("bf16",):
        rounded = theirs(cls, folder, ids, dtype)
        for name, tensor in ours(kind, folder, ids, dtype, tmp_path).items():
            assert relative_error(tensor, exact[name]) <= 2 * relative_error(rounded[name], exact[name]), (dtype, name)


@pytest.mark.parametrize("name", CLIP)
def test_clip_text_model(tmp_path, name):
    config = dict(
        vocab_size=100, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=40, bos_token_id=98, pad_token_id=99,
    )  # fmt: skip
    randomise(CLIPTextModel(CLIPTextConfig(**{**config, **CLIP[name]})), seed=1).save_pretrained(tmp_path / "model")
    compare("clip", CLIPTextModel, tmp_path / "model", clip_ids(), tmp_path)


@pytest.mark.parametrize("name", T5)
def test_t5_encoder(tmp_path, name):
    config = dict(vocab_size=100, d_model=64, d_kv=16, d_ff=96, num_layers=3, num_heads=4)
    randomise(T5EncoderModel(T5Config(**{**config, **T5[name]})), seed=2).save_pretrained(tmp_path / "model")
    compare("t5", T5EncoderModel, tmp_path / "model", t5_ids(), tmp_path)


def test_single_short_prompt(tmp_path):
    model = randomise(CLIPTextModel(CLIPTextConfig(vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, eos_token_id=99)), seed=5)
    model.save_pretrained(tmp_path / "clip")
    compare("clip", CLIPTextModel, tmp_path / "clip", torch.tensor([[98, 99]]), tmp_path)
    model = randomise(T5EncoderModel(T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)), seed=6)
    model.save_pretrained(tmp_path / "t5")
    compare("t5", T5EncoderModel, tmp_path / "t5", torch.tensor([[1]]), tmp_path)


def test_published_names_of_clip(tmp_path):
    """Checkpoints such as FLUX.1's have "text_model." before every name; transformers 5 writes none."""
    config = CLIPTextConfig(vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, eos_token_id=2)
    randomise(CLIPTextModel(config), seed=7).save_pretrained(tmp_path / "clip")
    path = tmp_path / "clip" / "model.safetensors"
    save_file({"text_model." + name: tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    compare("clip", CLIPTextModel, tmp_path / "clip", clip_ids(), tmp_path)
