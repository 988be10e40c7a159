"""ClipTextModel and T5Encoder against transformers on random small configs."""

import pytest
import torch
from encoding import DTYPES, ours, randomise
from parity import largest_error, norm_error
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

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
    "few-buckets": dict(
        feed_forward_proj="gated-gelu", relative_attention_num_buckets=6, relative_attention_max_distance=9
    ),
    "odd-buckets": dict(
        feed_forward_proj="relu", relative_attention_num_buckets=13, relative_attention_max_distance=200
    ),
    "wide-heads": dict(feed_forward_proj="gated-gelu", d_kv=24, num_heads=3),
    "t5-head": dict(feed_forward_proj="gated-gelu", d_model=128, d_kv=64, num_heads=4, d_ff=320),
}


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


def theirs(cls, folder, ids, dtype):
    model = cls.from_pretrained(folder, dtype=DTYPES[dtype]).eval()
    with torch.inference_mode():
        out = model(ids)
    result = {"last_hidden_state": out.last_hidden_state.float()}
    if cls is CLIPTextModel:
        result["pooled"] = out.pooler_output.float()
    return result


def compare(kind, cls, folder, ids, tmp_path):
    exact = theirs(cls, folder, ids, "fp32")
    for name, tensor in ours(kind, folder, ids, "fp32", tmp_path).items():
        assert norm_error(tensor, exact[name]) <= 1e-5, name
        assert largest_error(tensor, exact[name]) <= 1e-5, name
    for dtype in ("bf16", "fp16") if kind == "t5" else ("bf16",):
        rounded = theirs(cls, folder, ids, dtype)
        for name, tensor in ours(kind, folder, ids, dtype, tmp_path).items():
            assert norm_error(tensor, exact[name]) <= 2 * norm_error(rounded[name], exact[name]), (dtype, name)


def small_clip(folder, seed, **changes):
    config = dict(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=40,
        bos_token_id=98,
        pad_token_id=99,
    )
    randomise(CLIPTextModel(CLIPTextConfig(**{**config, **changes})), seed).save_pretrained(folder)
    return folder


def small_t5(folder, seed, **changes):
    config = dict(vocab_size=100, d_model=64, d_kv=16, d_ff=96, num_layers=3, num_heads=4)
    randomise(T5EncoderModel(T5Config(**{**config, **changes})), seed).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", CLIP)
def test_clip_text_model(tmp_path, name):
    compare("clip", CLIPTextModel, small_clip(tmp_path / "model", seed=1, **CLIP[name]), clip_ids(), tmp_path)


@pytest.mark.parametrize("name", T5)
def test_t5_encoder(tmp_path, name):
    compare("t5", T5EncoderModel, small_t5(tmp_path / "model", seed=2, **T5[name]), t5_ids(), tmp_path)


def test_shortest_prompt(tmp_path):
    clip = small_clip(tmp_path / "clip", seed=5, eos_token_id=99)
    compare("clip", CLIPTextModel, clip, torch.tensor([[98, 99]]), tmp_path)
    compare("t5", T5EncoderModel, small_t5(tmp_path / "t5", seed=6), torch.tensor([[1]]), tmp_path)


def test_published_names_of_clip(tmp_path):
    """Checkpoints such as FLUX.1's have "text_model." before every name; transformers 5 writes none."""
    folder = small_clip(tmp_path / "clip", seed=7, eos_token_id=2)
    path = folder / "model.safetensors"
    tensors = {"text_model." + name: tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    compare("clip", CLIPTextModel, folder, clip_ids(), tmp_path)
