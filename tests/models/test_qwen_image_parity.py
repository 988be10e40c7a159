"""Qwen-Image's transformer against diffusers, on random small configs."""

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from image_models import (
    block_linears,
    change_config,
    prune_inputs,
    randn,
    randomise,
    refuses,
    replaceable_linears,
    rope_table,
    run_tensors,
    same_rotation,
)
from parity import largest_error

CONFIGS = {
    "plain": dict(),
    "uneven-axes": dict(attention_head_dim=20, num_attention_heads=3, axes_dims_rope=(8, 4, 8)),
    "no-first-axis": dict(attention_head_dim=16, axes_dims_rope=(0, 8, 8)),
    "head-128": dict(attention_head_dim=128, num_attention_heads=1, axes_dims_rope=(16, 56, 56)),
    "patch-1": dict(patch_size=1, out_channels=16),
    "out-as-in": dict(out_channels=None),
    "no-blocks": dict(num_layers=0),
}


def build(folder, **changes):
    config = dict(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=24,
        axes_dims_rope=(8, 12, 12),
    )
    model = randomise(QwenImageTransformer2DModel(**{**config, **changes}), seed=1)
    model.save_pretrained(folder)
    return model


def random_inputs(model, batch, text, height, width, mask=None):
    inputs = {
        "hidden_states": randn(batch, height * width, model.config.in_channels, seed=2),
        "encoder_hidden_states": 3 * randn(batch, text, model.config.joint_attention_dim, seed=3),
        "timestep": torch.linspace(0.7311, 0.2, batch),
        "grid": torch.tensor([height, width]),
    }
    if mask is not None:
        inputs["mask"] = mask.long()
    return inputs


def diffusers_forward(model, inputs, dtype):
    height, width = inputs["grid"].tolist()
    mask = inputs.get("mask")
    with torch.no_grad():
        return model.to(dtype)(
            hidden_states=inputs["hidden_states"].to(dtype),
            encoder_hidden_states=inputs["encoder_hidden_states"].to(dtype),
            encoder_hidden_states_mask=None if mask is None else mask.bool(),
            timestep=inputs["timestep"].to(dtype),
            img_shapes=[[(1, height, width)]] * len(inputs["hidden_states"]),
            return_dict=False,
        )[0].float()


def text_mask(*rows):
    return torch.tensor([[int(c) for c in row] for row in rows])


SIZES = {
    "one": dict(batch=1, text=7, height=4, width=4),
    "odd": dict(batch=2, text=5, height=3, width=7),
    "tall": dict(batch=1, text=1, height=9, width=2),
    "long-text": dict(batch=1, text=500, height=1, width=6),
    "padded": dict(batch=2, text=6, height=4, width=3, mask=text_mask("111111", "111000")),
    "all-true": dict(batch=2, text=3, height=2, width=3, mask=text_mask("111", "111")),
    "holes": dict(batch=3, text=5, height=2, width=5, mask=text_mask("10110", "00001", "00000")),
}


@pytest.mark.parametrize("config, size", [(c, "odd") for c in CONFIGS] + [("plain", s) for s in SIZES])
def test_fp32(tmp_path, config, size):
    model = build(tmp_path, **CONFIGS[config])
    inputs = random_inputs(model, **SIZES[size])
    expected = diffusers_forward(model, inputs, torch.float32)
    actual = run_tensors(tmp_path, "image_parity", "qwen-image", inputs)
    assert largest_error(actual["output"], expected) <= 2e-6  # 3e-6 where sinusoids are scaled before their angles
    assert actual["same_again"].item() == 1


@pytest.mark.parametrize("text, height, width", [(3, 5, 4), (600, 1, 2), (2, 301, 2), (40, 3, 900)])
def test_rope(tmp_path, text, height, width):
    model = build(tmp_path)
    image, words = model.pos_embed([(1, height, width)], max_txt_seq_len=text)
    assert same_rotation(rope_table(tmp_path, "qwen-image", text, height, width), torch.cat([words, image]))


def test_padding_changes_nothing(tmp_path):
    """A masked text token is as good as none: its image equals that of the shorter prompt."""
    model = build(tmp_path)
    padded = random_inputs(model, **SIZES["padded"])
    alone = {name: tensor[1:] for name, tensor in padded.items() if name not in ("mask", "grid")}
    alone["encoder_hidden_states"] = alone["encoder_hidden_states"][:, :3]
    together = run_tensors(tmp_path, "image_parity", "qwen-image", padded)["output"][1:]
    expected = run_tensors(tmp_path, "image_parity", "qwen-image", {**alone, "grid": padded["grid"]})["output"]
    assert largest_error(together, expected) <= 1e-5


@pytest.mark.parametrize("size", ["odd", "padded"])
def test_bf16(tmp_path, size):
    model = build(tmp_path).bfloat16()  # the exact answer belongs to bf16 weights
    inputs = random_inputs(model, **SIZES[size])
    for key in ("hidden_states", "encoder_hidden_states", "timestep"):
        inputs[key] = inputs[key].bfloat16().float()
    theirs = diffusers_forward(model, inputs, torch.bfloat16)
    exact = diffusers_forward(model, inputs, torch.float64)
    ours = run_tensors(tmp_path, "image_parity", "qwen-image", inputs, "bf16")["output"]
    their_error = (theirs - exact).norm()
    assert (ours - exact).norm() <= 2 * their_error
    assert (ours - theirs).norm() <= 0.25 * their_error  # 0.7 where the RMS norms round once, not twice
    assert their_error <= 0.1 * exact.norm()  # else the comparison says nothing


def test_sparse(tmp_path):
    model = build(tmp_path)
    inputs = random_inputs(model, **SIZES["padded"])
    actual = run_tensors(tmp_path, "image_parity", "qwen-image", inputs, "fp32", "sa")["output"]
    names = block_linears(model, ("transformer_blocks",), ["img_mod", "txt_mod"])
    assert sorted(replaceable_linears(tmp_path)) == sorted(names)
    dense = diffusers_forward(model, inputs, torch.float32)
    prune_inputs(model, names)
    assert largest_error(actual, diffusers_forward(model, inputs, torch.float32)) <= 1e-5
    assert largest_error(actual, dense) >= 0.01


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(guidance_embeds=True), "unsupported: .*guidance_embeds is true"),
        (dict(zero_cond_t=True), "unsupported: .*zero_cond_t is true"),
        (dict(use_additional_t_cond=True), "unsupported: .*use_additional_t_cond is true"),
        (dict(use_layer3d_rope=True), "unsupported: .*use_layer3d_rope is true"),
        (dict(axes_dims_rope=[8, 12, 14]), r"bad-config: .*axes_dims_rope is \[8, 12, 14\].*32"),
        (dict(axes_dims_rope=[9, 11, 12]), "bad-config: .*axes_dims_rope"),
        (dict(axes_dims_rope=[16, 16]), "bad-config: .*axes_dims_rope has 2 values, expected 3"),
        (dict(patch_size=0), "bad-config: .*patch_size"),
        (dict(in_channels=1e300), "bad-config: .*in_channels"),
        (dict(out_channels=-4), "bad-config: .*out_channels"),
        (dict(num_layers="2"), "bad-config: .*num_layers"),
        (dict(attention_head_dim=0), "bad-config: .*attention_head_dim"),
        (dict(num_attention_heads=1 << 40), "bad-config: .*num_attention_heads"),
        (dict(joint_attention_dim=-1), "bad-config: .*joint_attention_dim"),
        (dict(num_layers=1), "tensor-unexpected: .*transformer_blocks.1"),
        (dict(num_layers=3), "tensor-missing: .*transformer_blocks.2"),
        (dict(num_attention_heads=4), "tensor-shape: "),
    ],
)
def test_refuses_configs(tmp_path, changes, message):
    model = build(tmp_path)
    change_config(tmp_path, "config.json", **changes)
    refuses(tmp_path, "qwen-image", random_inputs(model, **SIZES["one"]), message)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(grid=torch.tensor([4, 5])), r"invalid-argument: .*hidden_states: got shape \[1, 16, 16\].*\[1, 20, 16\]"),
        (dict(grid=torch.tensor([-4, -4])), "invalid-argument: .*-4x-4 tokens"),
        (dict(hidden_states=torch.zeros(16, 16)), "invalid-argument: .*hidden_states of 2"),
        (dict(encoder_hidden_states=torch.zeros(1, 7, 25)), r"invalid-argument: .*encoder_hidden_states.*\[1, 7, 24\]"),
        (dict(encoder_hidden_states=torch.zeros(1, 0, 24)), r"invalid-argument: .*encoder_hidden_states.*\[1, 1, 24\]"),
        (dict(encoder_hidden_states=torch.zeros(1, 4095, 24)), "invalid-argument: .*position 4096, expected .*4096"),
        (dict(timestep=torch.zeros(2)), r"invalid-argument: .*timestep: got shape \[2\], expected \[1\]"),
        (dict(mask=torch.ones(1, 6)), r"invalid-argument: .*encoder_hidden_states_mask: got shape \[1, 6\]"),
        (dict(float_mask=torch.ones(1, 7)), "invalid-argument: .*encoder_hidden_states_mask: got Float, expected Bool"),
    ],
)
def test_refuses_inputs(tmp_path, changes, message):
    model = build(tmp_path)
    refuses(tmp_path, "qwen-image", {**random_inputs(model, **SIZES["one"]), **changes}, message)
