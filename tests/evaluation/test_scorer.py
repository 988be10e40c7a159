"""The C++ scorer, its moments and its Frechet distance against torch and scipy."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

SCORER = Path("models/mini-flux-scorer")
PROGRAM = Path(os.environ["RTLYNX_BIN_DIR"]) / "score_pictures"
HEADS = ("left", "right", "top", "bottom", "centre", "colour", "pattern")


def pictures(count: int) -> torch.Tensor:
    """Smooth coloured noise, so that convolutions of all stages have something to see."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.randn(count, 3, 16, 16, generator=generator)
    fine = torch.randn(count, 3, 256, 256, generator=generator)
    return (F.interpolate(coarse, size=256, mode="bilinear") + 0.2 * fine).clamp(-1, 1).contiguous()


def read_by_torch(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    config = json.loads((SCORER / "config.json").read_text())
    weights = {k: v.float() for k, v in load_file(SCORER / "model.safetensors").items()}
    x = F.avg_pool2d(image, 2)
    for i in range(len(config["channels"])):
        for part, stride in (("a", 2), ("b", 1)):
            conv, norm = f"stages.{i}.conv_{part}", f"stages.{i}.norm_{part}"
            x = F.conv2d(x, weights[f"{conv}.weight"], weights[f"{conv}.bias"], stride=stride, padding=1)
            scale, shift = weights[f"{norm}.weight"], weights[f"{norm}.bias"]
            x = F.silu(F.group_norm(x, config["norm_groups"], scale, shift, config["norm_eps"]))
    features = F.silu(F.linear(x.flatten(1), weights["feature.weight"], weights["feature.bias"]))
    logits = [F.linear(features, weights[f"heads.{h}.weight"], weights[f"heads.{h}.bias"]) for h in HEADS]
    return features, torch.stack([head.argmax(1) for head in logits], 1)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("scorer")
    image = pictures(12)
    save_file({"image": image}, folder / "in.safetensors")
    subprocess.run([PROGRAM, SCORER, folder / "in.safetensors", folder / "out.safetensors"], check=True)
    return image, load_file(folder / "out.safetensors")


def test_features_and_labels(scored: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> None:
    image, got = scored
    features, labels = read_by_torch(image)
    torch.testing.assert_close(got["features"], features, rtol=1e-4, atol=1e-4)
    assert torch.equal(got["labels"], labels)
    assert features.std() > 0.01  # the comparison is not one of zeros


def test_moments_and_distance(scored: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> None:
    _, got = scored
    features = got["features"].double().numpy()
    np.testing.assert_allclose(got["mean"], features.mean(0), rtol=1e-9)
    np.testing.assert_allclose(got["covariance"], np.cov(features, rowvar=False), rtol=1e-9, atol=1e-12)
    reference = {k: v.double().numpy() for k, v in load_file(SCORER / "reference.safetensors").items() if v.dim() > 0}
    # scipy's general square root, with an offset because 12 pictures give a singular covariance.
    mean, covariance = got["mean"].numpy(), got["covariance"].numpy()
    offset = 1e-10 * np.eye(len(mean))
    root = scipy.linalg.sqrtm((covariance + offset) @ (reference["covariance"] + offset)).real
    gap = mean - reference["mean"]
    wanted = gap @ gap + np.trace(covariance) + np.trace(reference["covariance"]) - 2 * np.trace(root)
    np.testing.assert_allclose(got["distance"].item(), wanted, rtol=1e-3)


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    save_file({"image": torch.zeros(1, 3, 128, 128)}, tmp_path / "in.safetensors")
    command = [PROGRAM, SCORER, tmp_path / "in.safetensors", tmp_path / "out.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "256 x 256" in done.stderr and "128 x 128" in done.stderr
