"""The scorer: a small CNN that reads a picture back into the scene it should show."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scenes import COLOURS, CONCEPTS, PATTERNS, POSITIONS, Renderer, draw_scenes, labels

CHANNELS = (32, 48, 64, 96, 96)
FEATURES = 256
GROUPS = 8
HEADS: dict[str, int] = {p: len(CONCEPTS) + 1 for p in POSITIONS} | {"colour": len(COLOURS), "pattern": len(PATTERNS)}


class Stage(nn.Module):
    """Halves the resolution: two 3x3 convolutions, each with group norm and SiLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.norm_a = nn.GroupNorm(GROUPS, outputs)
        self.conv_b = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm_b = nn.GroupNorm(GROUPS, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm_a(self.conv_a(x)))
        return F.silu(self.norm_b(self.conv_b(x)))


class Scorer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (3, *CHANNELS)
        self.stages = nn.ModuleList(Stage(a, b) for a, b in pairwise(widths))
        self.feature = nn.Linear(CHANNELS[-1] * 4 * 4, FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, size) for name, size in HEADS.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images [B, 3, 256, 256] in [-1, 1] -> features [B, 256] and logits per head."""
        x = F.avg_pool2d(images, 2)
        for stage in self.stages:
            x = stage(x)
        feature = F.silu(self.feature(x.flatten(1)))
        return feature, {name: head(feature) for name, head in self.heads.items()}


def _blur(images: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 2.0, 1.0], device=images.device)
    kernel = (kernel[:, None] * kernel[None] / 16).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)


def augment(images: Tensor, reconstruct: Callable[[Tensor], Tensor]) -> Tensor:
    """What generated pictures differ by: an autoencoder's losses, softness, noise, slightly off colours."""
    count = len(images)

    def per_image(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(count, channels, 1, 1, device=images.device)

    images = images.clone()
    images[: count // 4] = reconstruct(images[: count // 4])
    soft = _blur(_blur(images))
    images = torch.lerp(images, soft, per_image(0, 1) * (per_image(0, 1) < 0.5))
    images = images * per_image(0.94, 1.06) + per_image(-0.05, 0.05, 3)
    return (images + torch.randn_like(images) * per_image(0, 1).pow(2) * 0.12).clamp(-1, 1)


def train_scorer(
    renderer: Renderer, reconstruct: Callable[[Tensor], Tensor], seconds: float, batch: int, seed: int
) -> Scorer:
    device = renderer.device
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    scorer = Scorer().to(device)
    optimizer = torch.optim.AdamW(scorer.parameters(), 2e-3, weight_decay=1e-3, fused=device.type == "cuda")
    start, step = time.monotonic(), 0
    while (done := (time.monotonic() - start) / seconds) < 1 or step < 2:
        scenes = draw_scenes(batch, generator)
        images, target = augment(renderer(scenes), reconstruct), labels(scenes, device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = scorer(images)[1]
        loss = torch.stack([F.cross_entropy(logits[name].float(), target[name]) for name in HEADS]).sum()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * max(0.005, min(1.0, 1.5 * (1 - done)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"scorer: step {step}, {time.monotonic() - start:.0f} s, loss {loss.item():.4f}", flush=True)
    return scorer.eval()


@torch.no_grad()
def read(scorer: Scorer, images: Tensor, batch: int = 256) -> tuple[Tensor, dict[str, Tensor]]:
    """Features and most likely class per head, for any number of images."""
    features, classes = [], {name: [] for name in HEADS}
    for part in images.split(batch):
        feature, logits = scorer(part)
        features.append(feature)
        for name in HEADS:
            classes[name].append(logits[name].argmax(1))
    return torch.cat(features), {name: torch.cat(parts) for name, parts in classes.items()}


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance in double precision."""
    features = features.double()
    return features.mean(0), torch.cov(features.T)


def frechet_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Of two normal distributions, given as (mean, covariance)."""
    mean_a, cov_a, mean_b, cov_b = (x.double().cpu() for x in (*a, *b))
    # The trace of the root of cov_a cov_b: that product is similar to a symmetric matrix, its eigenvalues are real.
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root)
