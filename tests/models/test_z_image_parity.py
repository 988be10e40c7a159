"""Z-Image's transformer against diffusers, on random small configs."""

import pytest
import torch
from diffusers import ZImageTransformer2DModel
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
    "odd-mlp": dict(dim=64, n_heads=2),  # 170 wide: 8/3 of 64, rounded down
    "wide": dict(dim=288, n_heads=9),  # the conditioning vector stays at 256
    "head-128": dict(dim=256, n_heads=2, n_kv_heads=2, axes_dims=[32, 48, 48]),
    "no-first-axis": dict(axes_dims=[0, 16, 16]),
    "no-qk-norm": dict(qk_norm=False),
    "norm-eps": dict(norm_eps=0.1),
    "theta": dict(rope_theta=10000.0, t_scale=250.0),
    "patch-4": dict(all_patch_size=(4,), all_f_patch_size=(1,)),
    "patch-1": dict(all_patch_size=(1,), all_f_patch_size=(1,), in_channels=3),
    "no-refiners": dict(n_refiner_layers=0),
    "refiners-only": dict(n_layers=0, n_refiner_layers=2),
}


def build(folder, **changes):
    config = dict(
        in_channels=4,
        dim=96,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=3,
        n_kv_heads=3,
        cap_feat_dim=24,
        axes_dims=[8, 12, 12],
        axes_lens=[530, 32, 32],
    )
    model = randomise(ZImageTransformer2DModel(**{**config, **changes}), seed=1)
    model.save_pretrained(folder)
    return model


def random_inputs(model, images):
    """`images`: (text tokens, height, width) of each, in latent pixels."""
    inputs = {"timestep": torch.linspace(0.2689, 0.8, len(images))}
    for i, (text, height, width) in enumerate(images):
        inputs[f"latents.{i}"] = randn(model.config.in_channels, height, width, seed=2 + i)
        inputs[f"cap_feats.{i}"] = 3 * randn(text, model.config.cap_feat_dim, seed=100 + i)
    return inputs


def named(tensors, name):
    return [tensors[f"{name}.{i}"] for i in range(len(tensors)) if f"{name}.{i}" in tensors]


def diffusers_forward(model, inputs, dtype):
    with torch.no_grad():
        output = model.to(dtype)(
            [latents.to(dtype).unsqueeze(1) for latents in named(inputs, "latents")],
            inputs["timestep"],
            [features.to(dtype) for features in named(inputs, "cap_feats")],
            patch_size=model.config.all_patch_size[0],
            return_dict=False,
        )[0]
    return [image.squeeze(1).float() for image in output]


IMAGES = {
    "one": [(5, 8, 12)],  # 24 image tokens and 8 pads, 5 words and 27
    "no-pads": [(32, 8, 16)],
    "same-sizes": [(7, 12, 8), (32, 12, 8)],  # equal once padded: no mask
    "cfg": [(40, 8, 12), (3, 8, 12)],  # prompt and negative prompt: masked
    "other-sizes": [(33, 8, 8), (1, 12, 20), (64, 4, 4)],
    "as-long-in-sum": [(40, 8, 16), (20, 12, 24)],  # masks in the refiners, none in the main blocks
    "long-text": [(512, 4, 8)],
}


def relative_errors(actual, expected):
    return [largest_error(a, e) for a, e in zip(actual, expected, strict=True)]


@pytest.mark.parametrize("config, images", [(c, "cfg") for c in CONFIGS] + [("plain", i) for i in IMAGES])
def test_fp32(tmp_path, config, images):
    model = build(tmp_path, **CONFIGS[config])
    inputs = random_inputs(model, IMAGES[images])
    expected = diffusers_forward(model, inputs, torch.float32)
    actual = run_tensors(tmp_path, "image_parity", "z-image", inputs)
    assert max(relative_errors(named(actual, "output"), expected)) <= 2e-6
    assert actual["same_again"].item() == 1


@pytest.mark.parametrize("text, height, width", [(5, 5, 7), (500, 4, 8), (32, 300, 1), (64, 1, 300)])
def test_rope(tmp_path, text, height, width):
    model = build(tmp_path, axes_lens=[1536, 512, 512])
    latents, features = torch.zeros(4, 1, 2 * height, 2 * width), torch.zeros(text, 24)
    _, padded, _, image, words, _, _ = model.patchify_and_embed([latents], [features], 2, 1)
    tokens = len(padded[0])  # words[0] has more positions than that; diffusers drops them later
    expected = model.rope_embedder(torch.cat([image[0], words[0][:tokens]]))
    assert same_rotation(rope_table(tmp_path, "z-image", tokens, height, width), expected)


def error_norm(images, exact):
    return sum((image - e).norm() ** 2 for image, e in zip(images, exact, strict=True)) ** 0.5


@pytest.mark.parametrize("images", ["one", "cfg"])
def test_bf16(tmp_path, images):
    model = build(tmp_path).bfloat16()  # the exact answer belongs to bf16 weights
    inputs = random_inputs(model, IMAGES[images])
    inputs = {name: t if name == "timestep" else t.bfloat16().float() for name, t in inputs.items()}
    theirs = diffusers_forward(model, inputs, torch.bfloat16)
    exact = diffusers_forward(model, inputs, torch.float64)
    ours = named(run_tensors(tmp_path, "image_parity", "z-image", inputs, "bf16"), "output")
    their_error = error_norm(theirs, exact)
    assert error_norm(ours, exact) <= 2 * their_error
    assert error_norm(ours, theirs) <= 0.25 * their_error  # 1.0 where the RMS norms round once, not twice
    assert their_error <= 0.1 * sum(e.norm() ** 2 for e in exact) ** 0.5  # else the comparison says nothing


def test_sparse(tmp_path):
    model = build(tmp_path)
    inputs = random_inputs(model, IMAGES["cfg"])
    actual = named(run_tensors(tmp_path, "image_parity", "z-image", inputs, "fp32", "sa"), "output")
    names = block_linears(model, ("noise_refiner", "context_refiner", "layers"), ["adaLN_modulation"])
    assert sorted(replaceable_linears(tmp_path)) == sorted(names)
    dense = diffusers_forward(model, inputs, torch.float32)
    prune_inputs(model, names)
    expected = diffusers_forward(model, inputs, torch.float32)
    assert max(relative_errors(actual, expected)) <= 1e-5
    assert min(relative_errors(actual, dense)) >= 0.01


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(siglip_feat_dim=1152), "unsupported: .*siglip_feat_dim"),
        (dict(all_patch_size=[2, 4], all_f_patch_size=[1, 1]), "unsupported: .*all_patch_size has 2 entries"),
        (dict(all_patch_size=[]), "unsupported: .*all_patch_size has 0 entries"),
        (dict(all_f_patch_size=[2]), "unsupported: .*all_f_patch_size has 1 entries, the first 2"),
        (dict(all_patch_size=[0]), "bad-config: .*all_patch_size"),
        (dict(axes_dims=[8, 12, 14]), r"bad-config: .*axes_dims is \[8, 12, 14\].*32"),
        (dict(axes_dims=[9, 11, 12]), "bad-config: .*axes_dims"),
        (dict(axes_lens=[512, 32]), "bad-config: .*axes_lens has 2 values, expected 3"),
        (dict(axes_lens=[512, 32, 0]), "bad-config: .*axes_lens"),
        (dict(n_heads=5), "bad-config: .*dim is 96, expected a multiple of n_heads, 5"),
        (dict(dim=1e300), "bad-config: .*dim"),
        (dict(in_channels=0), "bad-config: .*in_channels"),
        (dict(n_layers=-1), "bad-config: .*n_layers"),
        (dict(n_refiner_layers=2000), "bad-config: .*n_refiner_layers"),
        (dict(norm_eps=-1.0), "bad-config: .*norm_eps"),
        (dict(cap_feat_dim=0), "bad-config: .*cap_feat_dim"),
        (dict(rope_theta=0), "bad-config: .*rope_theta"),
        (dict(t_scale="1000"), "bad-config: .*t_scale"),
        (dict(qk_norm=1), "bad-config: .*qk_norm"),
        (dict(qk_norm=False), "tensor-unexpected: .*norm_k"),
        (dict(n_layers=1), "tensor-unexpected: .*layers.1"),
        (dict(n_refiner_layers=2), "tensor-missing: .*noise_refiner.1"),
        (dict(cap_feat_dim=25), "tensor-shape: .*cap_embedder.0"),
        (dict(all_patch_size=[4]), "tensor-missing: .*all_x_embedder.4-1"),
    ],
)
def test_refuses_configs(tmp_path, changes, message):
    model = build(tmp_path)
    change_config(tmp_path, "config.json", **changes)
    refuses(tmp_path, "z-image", random_inputs(model, IMAGES["one"]), message)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"latents.0": torch.zeros(4, 7, 12)}, r"invalid-argument: .*latents\[0\]: got .*\[4, 7, 12\], .*\[4, 6, 12\]"),
        ({"latents.0": torch.zeros(4, 0, 12)}, r"invalid-argument: .*latents\[0\]: .*expected \[4, 2, 12\]"),
        ({"latents.0": torch.zeros(5, 8, 12)}, r"invalid-argument: .*latents\[0\]"),
        ({"latents.0": torch.zeros(4, 1, 8, 12)}, r"invalid-argument: .*latents\[0\] of 4"),
        ({"latents.1": torch.zeros(4, 8, 12)}, "invalid-argument: .*2 latents and 1 cap_feats"),
        ({"latents.0": torch.zeros(4, 8, 66)}, "invalid-argument: .*grid of 4x33 tokens.*at most 528 and 32x32"),
        ({"cap_feats.0": torch.zeros(0, 24)}, r"invalid-argument: .*cap_feats\[0\].*\[1, 24\]"),
        ({"cap_feats.0": torch.zeros(5, 23)}, r"invalid-argument: .*cap_feats\[0\].*\[5, 24\]"),
        ({"cap_feats.0": torch.zeros(513, 24)}, "invalid-argument: .*544 text tokens .*at most 528"),
        ({"timestep": torch.zeros(2)}, "invalid-argument: .*timestep"),
    ],
)
def test_refuses_inputs(tmp_path, changes, message):
    model = build(tmp_path)
    refuses(tmp_path, "z-image", {**random_inputs(model, IMAGES["one"]), **changes}, message)
