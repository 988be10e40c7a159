"""Stage 1: the autoencoder, trained on rendered scenes."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .distributed import FlatGradients, Schedule, Team, set_rate
from .models import LATENT_CHANNELS, POSTERIOR_STD
from .scenes import Renderer, draw_scenes

_PEAK_RATE = 1e-3


def _differences(a: Tensor, b: Tensor) -> Tensor:
    """L1 of the images and of their gradients: sharp edges matter more than a perfect mean."""
    error = a - b
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges


def training_loss(vae: AutoencoderKL, images: Tensor) -> Tensor:
    with torch.autocast(images.device.type, torch.bfloat16):
        mean = vae.encoder(images)[:, :LATENT_CHANNELS]
        decoded = vae.decoder(mean + POSTERIOR_STD * torch.randn_like(mean))
    # With a fixed posterior width the KL term is this: it keeps the latents' scale from drowning the noise.
    return _differences(decoded.float(), images) + 1e-3 * mean.float().square().mean()


def train_autoencoder(
    vae: AutoencoderKL, renderer: Renderer, team: Team, seconds: float, batch: int, seed: int, most_steps: int | None
) -> None:
    parameters = [p for p in vae.parameters() if p.requires_grad]
    gradients = FlatGradients(parameters, team)
    fused = team.device.type == "cuda"
    optimizer = torch.optim.AdamW(parameters, _PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=fused)
    generator = torch.Generator().manual_seed(seed + team.rank)
    schedule = Schedule(team, seconds, most_steps=most_steps)
    while schedule.advance():
        images = renderer(draw_scenes(batch, generator)).to(memory_format=torch.channels_last)
        gradients.zero()
        loss = training_loss(vae, images)
        loss.backward()
        gradients.average_and_clip(1.0)
        set_rate(optimizer, schedule.rate(_PEAK_RATE, warm_up=100, anneal_from=0.3))
        optimizer.step()
        if schedule.step % 500 == 0:
            team.log(f"autoencoder: step {schedule.step}, {schedule.elapsed():.0f} s, loss {loss.item():.4f}")
    team.log(f"autoencoder: {schedule.step} steps of {batch} x {team.size} in {schedule.elapsed():.0f} s")


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Latent means as the autoencoder makes them, before shift and scale."""
    with torch.autocast(images.device.type, torch.bfloat16):
        return vae.encoder(images.to(memory_format=torch.channels_last))[:, :LATENT_CHANNELS].float()


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    with torch.autocast(latents.device.type, torch.bfloat16):
        return vae.decoder(latents.to(memory_format=torch.channels_last)).float().clamp(-1, 1)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Per image, of images in [-1, 1]."""
    return -10 * ((a - b) / 2).square().mean((1, 2, 3)).clamp(min=1e-12).log10()


def measure(vae: AutoencoderKL, renderer: Renderer, count: int, batch: int) -> dict[str, float]:
    """PSNR of reconstructions, and the latents' mean and deviation, which become shift and scale."""
    generator = torch.Generator().manual_seed(77)
    quality, latents = [], []
    for _ in range(max(1, count // batch)):
        images = renderer(draw_scenes(batch, generator))
        latent = encode(vae, images)
        quality.append(psnr(images, decode(vae, latent)))
        latents.append(latent)
    values = torch.cat(latents)
    return {"psnr": float(torch.cat(quality).mean()), "mean": float(values.mean()), "std": float(values.std())}


def set_normalisation(vae: AutoencoderKL, mean: float, std: float) -> None:
    """decode(z / scaling_factor + shift_factor), as in FLUX's VAE."""
    vae.register_to_config(scaling_factor=round(1 / std, 4), shift_factor=round(mean, 4))
