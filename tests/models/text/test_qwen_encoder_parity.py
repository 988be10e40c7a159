"""QwenTextModel against transformers on random small configs, and prompts against diffusers' pipelines."""

import json
import subprocess

import pytest
import torch
from awkward_prompts import prompts
from diffusers import QwenImagePipeline, ZImagePipeline
from encoding import BINARY, DTYPES, ours, randomise
from parity import largest_error, norm_error
from safetensors.torch import load_file, save_file
from tokenizing import train_qwen
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

STATES = {"qwen-last": -1, "qwen-second-to-last": -2}
SMALL = dict(
    vocab_size=100,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)
QWEN3 = {
    "grouped": dict(),
    "no-groups": dict(num_key_value_heads=4, rms_norm_eps=1e-3),
    "one-key-head": dict(num_key_value_heads=1, num_attention_heads=6, head_dim=24),
    "biases": dict(attention_bias=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "one-layer": dict(num_hidden_layers=1),
    "z-image-head": dict(head_dim=128, hidden_size=80, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "odd-sizes": dict(hidden_size=75, intermediate_size=131, head_dim=6, hidden_act="gelu"),
}
QWEN2_5_VL = {
    "grouped": dict(),
    "no-groups": dict(num_key_value_heads=4, rms_norm_eps=1e-3),
    "seven-heads": dict(num_attention_heads=7, num_key_value_heads=1, hidden_size=7 * 32),
    "other-theta": dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
}


def small_qwen3(folder, seed, cls=Qwen3Model, **changes):
    config = Qwen3Config(**{**SMALL, "head_dim": 16, **changes})
    randomise(cls(config), seed).save_pretrained(folder)
    return folder


def small_qwen2_5_vl(folder, seed, **changes):
    text = {**SMALL, **changes}
    pairs = text["hidden_size"] // text["num_attention_heads"] // 2
    rope = text.setdefault("rope_parameters", {"rope_type": "default", "rope_theta": 1e6})
    text["rope_parameters"] = {**rope, "mrope_section": [pairs - 4, 2, 2]}
    vision = dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=text["hidden_size"])
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    randomise(Qwen2_5_VLForConditionalGeneration(config), seed).save_pretrained(folder)
    return folder


def padded_ids(batch=3, tokens=150):
    """Prompts padded on the right, and their mask; the last one fills its row."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 98, (batch, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(batch - 1):
        ids[row, 9 + 30 * row :] = 99
        mask[row, 9 + 30 * row :] = 0
    return ids, mask


def theirs(cls, folder, kind, ids, mask, dtype):
    model = cls.from_pretrained(folder, dtype=DTYPES[dtype]).eval()
    with torch.inference_mode():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return out.hidden_states[STATES[kind]].float()[mask.bool()]


def compare(cls, folder, tmp_path, kinds=tuple(STATES), batch=None):
    ids, mask = batch or padded_ids()
    for kind in kinds:
        exact = theirs(cls, folder, kind, ids, mask, "fp32")
        actual = ours(kind, folder, ids, "fp32", tmp_path)["hidden_state"][mask.bool()]
        assert norm_error(actual, exact) <= 1e-5, kind
        assert largest_error(actual, exact) <= 1e-5, kind
        rounded = theirs(cls, folder, kind, ids, mask, "bf16")
        actual = ours(kind, folder, ids, "bf16", tmp_path)["hidden_state"][mask.bool()]
        assert norm_error(actual, exact) <= 2 * norm_error(rounded, exact), kind


@pytest.mark.parametrize("name", QWEN3)
def test_qwen3(tmp_path, name):
    compare(Qwen3Model, small_qwen3(tmp_path / "model", seed=1, **QWEN3[name]), tmp_path)


@pytest.mark.parametrize("name", QWEN2_5_VL)
def test_qwen2_5_vl(tmp_path, name):
    folder = small_qwen2_5_vl(tmp_path / "model", seed=2, **QWEN2_5_VL[name])
    compare(Qwen2_5_VLForConditionalGeneration, folder, tmp_path)


def test_shortest_prompt(tmp_path):
    folder = small_qwen3(tmp_path / "model", seed=3)
    compare(Qwen3Model, folder, tmp_path, batch=(torch.tensor([[5]]), torch.tensor([[1]])))


def test_qwen3_with_the_names_and_the_config_of_published_checkpoints(tmp_path):
    folder = small_qwen3(tmp_path / "model", seed=4, cls=Qwen3ForCausalLM)
    names = load_file(folder / "model.safetensors")
    assert "lm_head.weight" in names and "model.embed_tokens.weight" in names
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 1000000, "rope_scaling": None}
    del config["layer_types"]
    (folder / "config.json").write_text(json.dumps(config))
    compare(Qwen3ForCausalLM, folder, tmp_path)


@pytest.mark.parametrize("prefix", ["model.", "model.language_model."])
def test_qwen2_5_vl_with_the_names_and_the_config_of_published_checkpoints(tmp_path, prefix):
    """Checkpoints such as Qwen-Image's keep the language model under "model." and describe it at the config's top."""
    folder = small_qwen2_5_vl(tmp_path / "model", seed=5)
    path = folder / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        bare = name.removeprefix("model.").removeprefix("language_model.")
        is_decoder = bare.startswith(("layers.", "norm.", "embed_tokens."))
        tensors[prefix + bare if is_decoder else bare] = tensor
    assert any(name.startswith("visual.") for name in tensors) and "lm_head.weight" in tensors
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    sections = text.pop("rope_parameters")["mrope_section"]
    config |= {key: text[key] for key in (*SMALL, "rms_norm_eps", "hidden_act")}
    config |= {"rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": sections}}
    (folder / "config.json").write_text(json.dumps(config))
    compare(Qwen2_5_VLForConditionalGeneration, folder, tmp_path, kinds=["qwen-last"])


def features(kind, folder, texts, dtype, tmp_path):
    lines = tmp_path / "prompts.jsonl"
    lines.write_text("".join(json.dumps(text) + "\n" for text in texts))
    output = tmp_path / "features.safetensors"
    subprocess.run([BINARY, kind, folder, lines, output, dtype], check=True)
    found = load_file(output)
    return [found[str(i)] for i in range(len(texts))]


def texts_of_all_lengths():
    """Empty, short, and longer than what a pipeline reads."""
    return ["", "a fox", *prompts(0)[3:9], "word " * 1500]


def test_prompts_of_z_image(tmp_path):
    folder = tmp_path / "pipeline"
    train_qwen(folder / "tokenizer")
    small_qwen3(folder / "text_encoder", seed=6, vocab_size=1600)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{{ '<|im_start|>assistant\n' }}"
    )
    encoder = Qwen3Model.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    pipeline = ZImagePipeline(scheduler=None, vae=None, text_encoder=encoder, tokenizer=tokenizer, transformer=None)
    texts = texts_of_all_lengths()
    with torch.inference_mode():
        expected = pipeline.encode_prompt(list(texts), device="cpu", do_classifier_free_guidance=False)[0]
    actual = features("z-image", folder, texts, "fp32", tmp_path)
    assert max(len(rows) for rows in actual) == 512
    assert max(norm_error(a, b) for a, b in zip(actual, expected, strict=True)) <= 1e-5


def test_prompts_of_qwen_image(tmp_path):
    folder = tmp_path / "pipeline"
    train_qwen(folder / "tokenizer")
    small_qwen2_5_vl(folder / "text_encoder", seed=7, vocab_size=1600)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    pipeline = QwenImagePipeline(scheduler=None, vae=None, text_encoder=encoder, tokenizer=tokenizer, transformer=None)
    texts = texts_of_all_lengths()
    with torch.inference_mode():
        expected, mask = pipeline.encode_prompt(list(texts), device="cpu")
    actual = features("qwen-image", folder, texts, "fp32", tmp_path)
    assert max(len(rows) for rows in actual) == 1024
    for rows, theirs_padded, row_mask in zip(actual, expected, mask, strict=True):
        assert norm_error(rows, theirs_padded[row_mask.bool()]) <= 1e-5
