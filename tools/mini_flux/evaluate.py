"""Sampling and scoring: does each picture show what its caption asks for?"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .autoencoder import decode
from .captions import main_captions
from .denoiser import Denoiser
from .distributed import Team
from .models import TOKEN_CHANNELS, TOKENS, build_scheduler, unpack
from .pool import CLIP_TRAINED_LENGTH
from .scenes import IMAGE_SIZE, Scenes, draw_scenes, labels
from .scorer import Scorer, frechet_distance, moments, read
from .vocabulary import T5_LENGTH, Tokenizers

STEPS = 20
_MU = 0.5  # the scheduler's shift at 256 tokens
_PICTURES_A_BATCH = 250

Moments = tuple[Tensor, Tensor]


def score(scorer: Scorer, images: Tensor, scenes: Scenes, reference: Moments) -> dict[str, float]:
    """Share of pictures with all heads right ('accuracy'), per head, and the Frechet distance to real scenes."""
    features, found = read(scorer, images.to(next(scorer.parameters()).device))
    asked = labels(scenes, features.device)
    right = {name: found[name] == asked[name] for name in asked}
    result = {"accuracy": float(torch.stack(list(right.values())).all(0).float().mean())}
    result |= {name: round(float(hits.float().mean()), 4) for name, hits in right.items()}
    if len(features) > 1:
        result["frechet"] = round(frechet_distance(moments(features), reference), 3)
    return result


@torch.no_grad()
def sample_with_cfg(
    model: Denoiser, vae: AutoencoderKL, tokenizers: Tokenizers, scenes: Scenes, scale: float, seed: int, steps: int
) -> Tensor:
    """Classifier-free guidance with two forwards a step: what the distilled model should reach with one."""
    device = model.device
    scheduler = build_scheduler()
    clip, t5 = (ids.to(device) for ids in tokenizers(main_captions(scenes)))
    clip = clip[:, :CLIP_TRAINED_LENGTH]
    noise = torch.randn(len(scenes), TOKENS, TOKEN_CHANNELS, generator=torch.Generator().manual_seed(seed)).to(device)
    images = []
    for x, clip_ids, t5_ids in zip(*(v.split(_PICTURES_A_BATCH) for v in (noise, clip, t5)), strict=True):
        count = len(x)
        ids = (torch.cat([a, e.expand(count, -1)]) for a, e in ((clip_ids, model.empty.clip), (t5_ids, model.empty.t5)))
        guidance = torch.ones(2 * count, device=device)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=_MU, device=device)
        sigmas = scheduler.sigmas.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            features = model.text.forward(*ids)  # not the compiled call: this batch size is new to it
            for now, after in pairwise(sigmas):
                v = model.velocity(x.repeat(2, 1, 1), now.expand(2 * count), guidance, features)
                x = x + (after - now) * torch.lerp(v[count:], v[:count], scale)
        latents = unpack(x) / vae.config.scaling_factor + vae.config.shift_factor
        images += [decode(vae, part) for part in latents.split(64)]
    return torch.cat(images)


def best_scale(
    model: Denoiser,
    vae: AutoencoderKL,
    tokenizers: Tokenizers,
    scorer: Scorer,
    reference: Moments,
    team: Team,
    scales: tuple[float, ...],
    count: int,
    steps: int,
) -> tuple[float, dict[float, dict[str, float]]]:
    """The scale of the highest accuracy; among those within half a percent of it, the lowest distance."""
    scenes = draw_scenes(count, torch.Generator().manual_seed(4242))
    table = torch.zeros(len(scales), 2, device=team.device, dtype=torch.float64)
    for i in range(team.rank, len(scales), team.size):
        result = score(
            scorer, sample_with_cfg(model, vae, tokenizers, scenes, scales[i], 4242, steps), scenes, reference
        )
        table[i] = torch.tensor([result["accuracy"], result.get("frechet", 0.0)])
    if team.size > 1:
        torch.distributed.all_reduce(table)
    rows = {s: {"accuracy": float(a), "frechet": float(f)} for s, (a, f) in zip(scales, table.tolist(), strict=True)}
    for scale, row in rows.items():
        team.log(f"true CFG at scale {scale}: accuracy {row['accuracy']:.4f}, Frechet distance {row['frechet']:.2f}")
    top = max(row["accuracy"] for row in rows.values())
    good = [s for s, row in rows.items() if row["accuracy"] >= top - 0.005 and s > 1]
    chosen = min(good or [s for s in scales if s > 1], key=lambda s: rows[s]["frechet"])
    return chosen, rows


class FolderPipeline:
    """The exported folder as users run it: FluxPipeline, bf16 on an accelerator."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from diffusers import FluxPipeline

        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.pipeline = FluxPipeline.from_pretrained(folder, torch_dtype=dtype).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.device = device

    def __call__(self, captions: list[str], seed: int, steps: int, guidance: float, true_cfg: float = 1.0) -> Tensor:
        """Images in [-1, 1] on the CPU; noise from the CPU generator, so a seed means the same anywhere."""
        images, generator = [], torch.Generator().manual_seed(seed)
        for start in range(0, len(captions), _PICTURES_A_BATCH):
            part = captions[start : start + _PICTURES_A_BATCH]
            result = self.pipeline(
                part,
                negative_prompt=[""] * len(part) if true_cfg > 1 else None,
                true_cfg_scale=true_cfg,
                height=IMAGE_SIZE,
                width=IMAGE_SIZE,
                num_inference_steps=steps,
                guidance_scale=guidance,
                max_sequence_length=T5_LENGTH,
                generator=generator,
                output_type="pt",
            ).images
            images.append(result.float().cpu() * 2 - 1)
        return torch.cat(images)


def save_grid(images: Tensor, path: Path, columns: int) -> None:
    from PIL import Image

    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    rows = [np.concatenate(list(pixels[i : i + columns]), 1) for i in range(0, len(pixels) - columns + 1, columns)]
    Image.fromarray(np.concatenate(rows, 0)).save(path)
