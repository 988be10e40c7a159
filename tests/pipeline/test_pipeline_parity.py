"""The whole pipeline against diffusers' FluxPipeline: same folder, prompt, seed and steps."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_flux
import torch
from diffusers import FluxPipeline
from image_models import run
from safetensors.torch import load_file, save_file

MINI_FLUX = Path(__file__).parents[2] / "models" / "mini-flux"
PROMPT = "a fox above a red apple on a striped blue background"
COMMON = dict(prompt=PROMPT, width=48, height=48, num_inference_steps=4, max_sequence_length=32, seed=7)
REQUESTS = {
    "plain": dict(),
    "wide": dict(width=64, height=32, seed=8),
    "tall, one step": dict(width=24, height=80, num_inference_steps=1),
    "guidance": dict(guidance_scale=1.5),
    "batch": dict(num_images_per_prompt=3, seed=11),
    "true CFG": dict(negative_prompt="a blue owl", true_cfg_scale=2.5),
    "true CFG against the empty prompt": dict(negative_prompt="", true_cfg_scale=3.0),
    "negative prompt without CFG": dict(negative_prompt="a blue owl", true_cfg_scale=1.0),
    "long prompt": dict(prompt=PROMPT + 40 * " and a small tree", max_sequence_length=16),
    "empty prompt": dict(prompt=""),
    "512 tokens": dict(max_sequence_length=512),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return tiny_flux.build(tmp_path_factory.mktemp("pipeline") / "tiny-flux")


def ours(folder, requests, tmp_path, dtype="fp32"):
    """uint8 [images, height, width, 3] of each request."""
    (tmp_path / "requests.json").write_text(json.dumps({"requests": requests}))
    result = run("pipeline_parity", folder, tmp_path / "requests.json", tmp_path / "out.safetensors", dtype)
    assert result.returncode == 0, result.stderr
    images = load_file(tmp_path / "out.safetensors")
    return [images[str(i)].numpy() for i in range(len(requests))]


def theirs(pipeline, request):
    request = dict(request)
    seed, count = request.pop("seed"), request.get("num_images_per_prompt", 1)
    generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(count)]
    return np.stack([np.asarray(image) for image in pipeline(generator=generators, **request).images])


def load_diffusers(folder, dtype=torch.float32):
    pipeline = FluxPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def share_within_one(actual, expected):
    assert actual.shape == expected.shape
    return (np.abs(actual.astype(int) - expected.astype(int)) <= 1).mean()


def test_requests(tiny, tmp_path):
    requests = [{**COMMON, **changes} for changes in REQUESTS.values()]
    diffusers = load_diffusers(tiny)
    for name, request, actual in zip(REQUESTS, requests, ours(tiny, requests, tmp_path), strict=True):
        expected = theirs(diffusers, request)
        assert expected.std() > 20, name  # a flat picture would prove nothing
        assert share_within_one(actual, expected) >= 0.999, name


def test_batch_of_different_prompts_gives_the_single_pictures(tiny, tmp_path):
    prompts = [PROMPT, "a snail", "zwei Igel im Regen"]
    single = [{**COMMON, "prompt": prompt, "seed": 3 * i} for i, prompt in enumerate(prompts)]
    batch = {**COMMON, "prompts": prompts, "seeds": [0, 3, 6]}
    *rows, together = ours(tiny, [*single, batch], tmp_path)
    assert share_within_one(together, np.concatenate(rows)) >= 0.999


def test_batch_counts_seeds_up(tiny, tmp_path):
    single = [{**COMMON, "seed": 5 + i} for i in range(3)]
    *rows, batch = ours(tiny, [*single, {**COMMON, "seed": 5, "num_images_per_prompt": 3}], tmp_path)
    assert share_within_one(batch, np.concatenate(rows)) >= 0.999


def test_same_request_gives_the_same_bytes(tiny, tmp_path):
    first, again = ours(tiny, [COMMON, COMMON], tmp_path)
    (other_process,) = ours(tiny, [COMMON], tmp_path)
    assert (first == again).all() and (first == other_process).all()


def test_defaults_are_the_models(tiny, tmp_path):
    """48 pixels are the VAE's sample_size, 512 tokens the tokenizer's limit."""
    asked = {**COMMON, "max_sequence_length": 512}
    silent = {key: value for key, value in COMMON.items() if key not in ("width", "height", "max_sequence_length")}
    first, second = ours(tiny, [asked, silent], tmp_path)
    assert (first == second).all()


def test_without_guidance_embedding(tmp_path):
    folder = tiny_flux.build(tmp_path / "schnell", guidance_embeds=False)
    (actual,) = ours(folder, [COMMON], tmp_path)
    assert share_within_one(actual, theirs(load_diffusers(folder), COMMON)) >= 0.999


def test_bf16_is_as_near_to_fp32_as_diffusers(tiny, tmp_path):
    """All three start from the noise that torch draws in bf16, which is another one than in fp32."""
    actual = ours(tiny, [COMMON], tmp_path, "bf16")[0].astype(float)
    expected = theirs(load_diffusers(tiny, torch.bfloat16), COMMON)
    noise = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(COMMON["seed"]), dtype=torch.bfloat16)
    latents = FluxPipeline._pack_latents(noise.float(), 1, 4, 12, 12)
    exact = theirs(load_diffusers(tiny), {**COMMON, "latents": latents}).astype(float)
    their_error = np.abs(expected - exact).mean()
    assert 0 < their_error < 0.5 * exact.std()  # else the comparison says nothing
    assert np.abs(actual - exact).mean() <= 2 * their_error


@pytest.mark.skipif(not (MINI_FLUX / "model_index.json").exists(), reason="models/mini-flux is not there")
def test_mini_flux(tmp_path):
    """The issue's bound on the embedded model, at its own size."""
    common = dict(prompt=PROMPT, width=256, height=256, num_inference_steps=8, max_sequence_length=32, seed=42)
    requests = [common, {**common, "width": 192, "height": 320, "negative_prompt": "a cat", "true_cfg_scale": 2.0}]
    diffusers = load_diffusers(MINI_FLUX)
    for request, actual in zip(requests, ours(MINI_FLUX, requests, tmp_path), strict=True):
        assert share_within_one(actual, theirs(diffusers, request)) >= 0.999


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            dict(width=13),
            r"invalid-argument: width is 13, must be a multiple of 8 for this model \(vae factor 4 x packing 2\)",
        ),
        (dict(height=52), "invalid-argument: height is 52, must be a multiple of 8"),
        (dict(width=-8), "invalid-argument: width is -8"),
        (dict(height=1 << 30), "invalid-argument: height is 1073741824, expected 1 to"),
        (dict(num_inference_steps=0), "invalid-argument: num_inference_steps is 0, expected 1 to"),
        (dict(num_images_per_prompt=0), "invalid-argument: num_images_per_prompt is 0"),
        (dict(max_sequence_length=513), "invalid-argument: max_sequence_length is 513, expected 1 to 512"),
        (dict(guidance_scale=-1.0), "invalid-argument: guidance_scale is -1"),
        (dict(true_cfg_scale=1e6), "invalid-argument: true_cfg_scale is"),
    ],
)
def test_refuses_requests(tiny, tmp_path, changes, message):
    with pytest.raises(AssertionError, match=message):
        ours(tiny, [{**COMMON, **changes}], tmp_path)
    assert not (tmp_path / "out.safetensors").exists()


def poison(folder, file, tensor, value=float("nan")):
    tensors = load_file(folder / file)
    tensors[tensor].view(-1)[0] = value
    save_file(tensors, folder / file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "file, tensor, message",
    [
        (
            "transformer/diffusion_pytorch_model.safetensors",
            "transformer_blocks.1.attn.to_q.weight",
            "denoising step 1 of 4: transformer_blocks.1 gives non-finite hidden_states",
        ),
        (
            "transformer/diffusion_pytorch_model.safetensors",
            "single_transformer_blocks.0.proj_mlp.bias",
            "denoising step 1 of 4: single_transformer_blocks.0 gives non-finite hidden_states",
        ),
        (
            "vae/diffusion_pytorch_model.safetensors",
            "decoder.up_blocks.1.resnets.0.norm1.bias",
            r"decoding image 1 of 1 \(seed 7\): vae: decoder.up_blocks.1 gives non-finite values",
        ),
        (
            "text_encoder/model.safetensors",
            "text_model.final_layer_norm.bias",
            "encoding the prompt: text_encoder gives non-finite pooled_prompt_embeds",
        ),
        (
            "text_encoder_2/model.safetensors",
            "encoder.final_layer_norm.weight",
            "encoding the prompt: text_encoder_2 gives non-finite prompt_embeds",
        ),
    ],
)
def test_names_where_values_stop_being_finite(tiny, tmp_path, file, tensor, message):
    folder = shutil.copytree(tiny, tmp_path / "poisoned")
    names = load_file(folder / file)
    poison(folder, file, tensor if tensor in names else tensor.removeprefix("text_model."))
    with pytest.raises(AssertionError, match=f"non-finite: {message}"):
        ours(folder, [COMMON], tmp_path)
    assert not (tmp_path / "out.safetensors").exists()


def edit_json(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    "file, changes, message",
    [
        ("model_index.json", dict(_class_name="QwenImagePipeline"), "unknown-class: .*QwenImagePipeline.*FluxPipeline"),
        ("model_index.json", dict(vae=["diffusers", "AutoencoderTiny"]), "unknown-class: .*AutoencoderTiny"),
        ("model_index.json", dict(tokenizer_2=["transformers", "BertTokenizer"]), "unknown-class: .*BertTokenizer"),
        ("vae/config.json", dict(latent_channels=5), "tensor-shape: "),
        ("transformer/config.json", dict(in_channels=64), "tensor-shape: "),
    ],
)
def test_refuses_folders(tiny, tmp_path, file, changes, message):
    folder = shutil.copytree(tiny, tmp_path / "changed")
    edit_json(folder / file, **changes)
    with pytest.raises(AssertionError, match=message):
        ours(folder, [COMMON], tmp_path)


def test_refuses_parts_that_do_not_fit_together(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "changed")
    shutil.rmtree(folder / "vae")
    vae = tiny_flux.build_vae()
    type(vae).from_config({**vae.config, "latent_channels": 8}).save_pretrained(folder / "vae")
    with pytest.raises(AssertionError, match=r"bad-config: .*in_channels is 16.*latent_channels is 32"):
        ours(folder, [COMMON], tmp_path)
