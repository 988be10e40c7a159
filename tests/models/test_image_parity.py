"""FLUX's transformer, the VAE decoder and the scheduler against diffusers, on random small configs."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline, calculate_shift
from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas
from image_models import (
    block_linears,
    change_config,
    prune_inputs,
    randn,
    randomise,
    refuses,
    replaceable_linears,
    rope_table,
    run,
    run_tensors,
    same_rotation,
)
from parity import largest_error

TRANSFORMERS = {
    "guidance": dict(guidance_embeds=True),
    "no-guidance": dict(),
    "uneven-axes": dict(attention_head_dim=20, num_attention_heads=3, axes_dims_rope=(8, 4, 8), guidance_embeds=True),
    "no-first-axis": dict(attention_head_dim=16, axes_dims_rope=(0, 8, 8)),
    "head-128": dict(attention_head_dim=128, num_attention_heads=1, axes_dims_rope=(16, 56, 56), guidance_embeds=True),
    "double-only": dict(num_single_layers=0, guidance_embeds=True),
    "single-only": dict(num_layers=0),
    "other-out-channels": dict(out_channels=12),
}


def build_transformer(folder, **changes):
    config = dict(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=20,
        axes_dims_rope=(8, 12, 12),
    )
    model = randomise(FluxTransformer2DModel(**{**config, **changes}), seed=1)
    model.save_pretrained(folder)
    return model


def transformer_inputs(model, batch, text, height, width):
    inputs = {
        "hidden_states": randn(batch, height * width, model.config.in_channels, seed=2),
        "encoder_hidden_states": randn(batch, text, model.config.joint_attention_dim, seed=3),
        "pooled_projections": randn(batch, model.config.pooled_projection_dim, seed=4),
        "timestep": torch.linspace(0.7311, 0.2, batch),
    }
    if model.config.guidance_embeds:
        inputs["guidance"] = torch.linspace(3.5, 5.3, batch)
    return inputs


def diffusers_forward(model, inputs, height, width, dtype):
    with torch.no_grad():
        return model.to(dtype)(
            **{name: t if name in ("timestep", "guidance") else t.to(dtype) for name, t in inputs.items()},
            img_ids=FluxPipeline._prepare_latent_image_ids(1, height, width, "cpu", dtype),
            txt_ids=torch.zeros(inputs["encoder_hidden_states"].shape[1], 3, dtype=dtype),
            return_dict=False,
        )[0].float()


@pytest.mark.parametrize("batch, text, height, width", [(1, 7, 4, 4), (2, 5, 3, 6)])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformer_fp32(tmp_path, name, batch, text, height, width):
    model = build_transformer(tmp_path, **TRANSFORMERS[name])
    inputs = transformer_inputs(model, batch, text, height, width)
    expected = diffusers_forward(model, inputs, height, width, torch.float32)
    actual = run_tensors(tmp_path, "image_parity", "flux", {**inputs, "grid": torch.tensor([height, width])})
    assert largest_error(actual["output"], expected) <= 1e-5
    assert actual["same_again"].item() == 1  # the second forward uses the kept rotary table


@pytest.mark.parametrize("text, height, width", [(3, 5, 4), (2, 300, 3), (2, 2, 900)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_transformer_rope(tmp_path, text, height, width, dtype):
    model = build_transformer(tmp_path)
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    image = FluxPipeline._prepare_latent_image_ids(1, height, width, "cpu", torch_dtype)
    cos, sin = model.pos_embed(torch.cat([torch.zeros(text, 3, dtype=torch_dtype), image]))
    expected = torch.complex(cos[:, ::2], sin[:, ::2])
    assert same_rotation(rope_table(tmp_path, "flux", text, height, width, dtype), expected)


@pytest.mark.parametrize("name", ["guidance", "no-guidance"])
def test_transformer_bf16(tmp_path, name):
    model = build_transformer(tmp_path, **TRANSFORMERS[name]).bfloat16()  # the exact answer belongs to bf16 weights
    inputs = transformer_inputs(model, 2, 6, 4, 6)
    for key in ("hidden_states", "encoder_hidden_states", "pooled_projections"):
        inputs[key] = inputs[key].bfloat16().float()
    theirs = diffusers_forward(model, inputs, 4, 6, torch.bfloat16)
    rounded = {**inputs}  # what bf16 makes of t and guidance is part of the input
    for key in ("timestep", "guidance"):
        if key in rounded:
            rounded[key] = (rounded[key].bfloat16() * 1000).float() / 1000
    exact = diffusers_forward(model, rounded, 4, 6, torch.float64)
    ours = run_tensors(tmp_path, "image_parity", "flux", {**inputs, "grid": torch.tensor([4, 6])}, "bf16")
    their_error = (theirs - exact).norm()
    assert (ours["output"] - exact).norm() <= 2 * their_error
    assert their_error <= 0.1 * exact.norm()  # else the comparison says nothing


def test_transformer_sparse(tmp_path):
    model = build_transformer(tmp_path)
    inputs = transformer_inputs(model, 2, 7, 3, 4)
    actual = run_tensors(tmp_path, "image_parity", "flux", {**inputs, "grid": torch.tensor([3, 4])}, "fp32", "sa")
    blocks = ("transformer_blocks", "single_transformer_blocks")
    names = block_linears(model, blocks, [".norm1.", ".norm1_context.", ".norm."])
    assert sorted(replaceable_linears(tmp_path)) == sorted(names)
    dense = diffusers_forward(model, inputs, 3, 4, torch.float32)
    prune_inputs(model, names)
    assert largest_error(actual["output"], diffusers_forward(model, inputs, 3, 4, torch.float32)) <= 1e-5
    assert largest_error(actual["output"], dense) >= 0.01


VAES = {
    "flux-like": dict(use_quant_conv=False, use_post_quant_conv=False, latent_channels=16, shift_factor=0.1159),
    "post-quant-conv": dict(),
    "no-mid-attention": dict(mid_block_add_attention=False),
    "narrow-to-wide": dict(block_out_channels=(8, 24, 40), layers_per_block=2, norm_num_groups=8),
    "one-block": dict(block_out_channels=(16,), norm_num_groups=4),
}


def build_vae(folder, **changes):
    config = dict(block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4)
    config |= changes
    blocks = len(config["block_out_channels"])
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks, **config
    )
    randomise(model, seed=5).save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", VAES)
def test_vae_fp32(tmp_path, name):
    model = build_vae(tmp_path, **VAES[name])
    latents = randn(2, model.config.latent_channels, 6, 10, seed=6)
    with torch.no_grad():
        expected = model.decode(latents).sample
    actual = run_tensors(tmp_path, "image_parity", "vae", {"latents": latents})["output"]
    assert largest_error(actual, expected) <= 1e-4


def test_vae_bf16(tmp_path):
    model = build_vae(tmp_path, **VAES["flux-like"]).bfloat16()
    latents = randn(1, 16, 8, 6, seed=6).bfloat16()
    with torch.no_grad():
        theirs = model.decode(latents).sample.float()
        exact = model.double().decode(latents.double()).sample
    ours = run_tensors(tmp_path, "image_parity", "vae", {"latents": latents.float()}, "bf16")["output"]
    assert (ours - exact).norm() <= 2 * (theirs - exact).norm()


SCHEDULERS = {
    "flux-dev": dict(use_dynamic_shifting=True, shift=3.0),
    "schnell": dict(shift=1.0),
    "z-image-turbo": dict(shift=3.0),
    "z-image": dict(shift=6.0),
    "linear": dict(use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.7, max_shift=2.5),
    "qwen-image": dict(use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02),
    "static-terminal": dict(shift=2.5, shift_terminal=0.1),
    "few-timesteps": dict(use_dynamic_shifting=True, num_train_timesteps=500),
}


SCHEDULES = [(name, steps, tokens, "fp32") for name in SCHEDULERS for steps, tokens in [(28, 4096), (9, 77)]]
SCHEDULES += [("z-image-turbo", 8, 4096, "fp32"), ("z-image", 50, 4096, "fp32"), ("qwen-image", 50, 4096, "fp32")]
SCHEDULES += [("flux-dev", 4, 256, "bf16"), ("qwen-image", 50, 1024, "bf16")]


@pytest.mark.parametrize("name, steps, tokens, dtype", SCHEDULES)
def test_scheduler(tmp_path, name, steps, tokens, dtype):
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULERS[name])
    scheduler.save_pretrained(tmp_path)
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    sample = randn(2, 5, 8, seed=7).to(torch_dtype)
    outputs = randn(steps, 2, 5, 8, seed=8).to(torch_dtype)
    inputs = {"sample": sample.float(), "model_outputs": outputs.float(), "image_seq_len": torch.tensor(tokens)}
    start_sigmas = np.linspace(1.0, 1 / steps, steps)
    if name.startswith("z-image"):
        start_sigmas = get_default_z_image_sigmas(steps)
        inputs["torch_start"] = torch.tensor(1)
    actual = run_tensors(tmp_path, "image_parity", "scheduler", inputs, dtype)

    keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(tokens, *(scheduler.config[key] for key in keys))
    scheduler.set_timesteps(sigmas=start_sigmas, mu=mu)
    assert torch.equal(actual["sigmas"], scheduler.sigmas)
    assert torch.equal(actual["timesteps"], scheduler.timesteps)
    scheduler.set_begin_index(0)
    for i, t in enumerate(scheduler.timesteps):
        sample = scheduler.step(outputs[i], t, sample, return_dict=False)[0]
        assert torch.equal(actual["samples"][i], sample.float())


ANY_INPUTS = {"model_outputs": torch.zeros(2, 1), "sample": torch.zeros(1), "image_seq_len": torch.tensor(4)}


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(patch_size=2), "unsupported: .*patch_size is 2"),
        (dict(axes_dims_rope=[8, 12, 14]), r"bad-config: .*axes_dims_rope is \[8, 12, 14\].*32"),
        (dict(axes_dims_rope=[9, 11, 12]), "bad-config: .*axes_dims_rope"),
        (dict(axes_dims_rope=[16, 16]), "bad-config: .*axes_dims_rope has 2 values, expected 3"),
        (dict(num_layers=-1), "bad-config: .*num_layers"),
        (dict(num_layers=1), "tensor-unexpected: .*transformer_blocks.1"),
        (dict(num_single_layers=4), "tensor-missing: .*single_transformer_blocks.3"),
        (dict(num_attention_heads=4), "tensor-shape: "),
        (dict(attention_head_dim=0), "bad-config: .*attention_head_dim"),
        (dict(in_channels=1e300), "bad-config: .*in_channels"),
    ],
)
def test_transformer_refuses(tmp_path, changes, message):
    build_transformer(tmp_path)
    change_config(tmp_path, "config.json", **changes)
    refuses(tmp_path, "flux", ANY_INPUTS, message)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(act_fn="gelu"), "unsupported: .*act_fn"),
        (dict(up_block_types=["AttnUpDecoderBlock2D"] * 3), "unsupported: .*AttnUpDecoderBlock2D"),
        (dict(up_block_types=["UpDecoderBlock2D"]), "bad-config: .*1 up_block_types for 3"),
        (dict(norm_num_groups=5), "bad-config: .*norm_num_groups, 5"),
        (dict(block_out_channels=[]), "bad-config: .*block_out_channels"),
        (dict(scaling_factor=0), "bad-config: .*scaling_factor"),
        (dict(mid_block_add_attention=False), "tensor-unexpected: .*decoder.mid_block.attentions"),
    ],
)
def test_vae_refuses(tmp_path, changes, message):
    build_vae(tmp_path)
    change_config(tmp_path, "config.json", **changes)
    refuses(tmp_path, "vae", ANY_INPUTS, message)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(use_karras_sigmas=True), "unsupported: .*use_karras_sigmas"),
        (dict(use_flow_sigmas=True), "unsupported: .*use_flow_sigmas"),
        (dict(stochastic_sampling=True), "unsupported: .*stochastic_sampling"),
        (dict(time_shift_type="cosine"), "bad-config: .*cosine.*exponential or linear"),
        (dict(base_image_seq_len=4096), "bad-config: .*two different"),
        (dict(shift=0), "bad-config: .*shift"),
        (dict(max_shift=1000, base_shift=900), "invalid-argument: .*not finite"),
    ],
)
def test_scheduler_refuses(tmp_path, changes, message):
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(tmp_path)
    change_config(tmp_path, "scheduler_config.json", **changes)
    refuses(tmp_path, "scheduler", ANY_INPUTS, message)


def test_transformer_refuses_inputs_of_another_shape(tmp_path):
    model = build_transformer(tmp_path, guidance_embeds=True)
    inputs = {**transformer_inputs(model, 2, 5, 3, 4), "grid": torch.tensor([4, 4])}
    refuses(tmp_path, "flux", inputs, r"invalid-argument: .*hidden_states.*\[2, 12, 16\].*\[2, 16, 16\]")
    inputs = {**inputs, "grid": torch.tensor([3, 4])}
    del inputs["guidance"]
    refuses(tmp_path, "flux", inputs, r"invalid-argument: .*guidance")


def test_start_sigmas_differ():
    """Else it would not matter which linspace a pipeline takes, and the tests could not tell."""
    assert any(
        not np.array_equal(np.linspace(1.0, 1 / n, n).astype(np.float32), np.float32(get_default_z_image_sigmas(n)))
        for n in (8, 9, 28, 50)
    )


def test_usage():
    assert run("image_parity").returncode == 2
