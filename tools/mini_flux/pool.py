"""The training set: latents of rendered scenes with tokenised captions, in the accelerator's memory.

A process of its own fills a pool while the trainer compiles, and hands it over in a file.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .autoencoder import encode
from .captions import training_captions
from .models import TOKEN_CHANNELS, TOKENS, pack
from .scenes import Renderer, Scenes, draw_scenes
from .vocabulary import T5_LENGTH, Tokenizers

# No caption has more CLIP tokens; CLIP is causal and reads the first end marker, so what follows
# in the 77 places cannot change its result and need not be computed.
CLIP_TRAINED_LENGTH = 32
_JOB = 2048

_tokenizers: Tokenizers | None = None


@dataclass
class Pool:
    latents: Tensor  # [N, 256, 64] bf16, normalised
    clip: Tensor  # [N, 32] int32
    t5: Tensor  # [N, 32] int32

    def __len__(self) -> int:
        return len(self.latents)


def _describe(folder: Path, seed: int, count: int) -> tuple[Scenes, Tensor, Tensor]:
    """Draws scenes and tokenises their captions; runs in a worker process."""
    global _tokenizers
    if _tokenizers is None:
        torch.set_num_threads(1)
        _tokenizers = Tokenizers(folder)
    scenes = draw_scenes(count, torch.Generator().manual_seed(seed))
    clip, t5 = _tokenizers(training_captions(scenes, random.Random(seed)))
    return scenes, clip[:, :CLIP_TRAINED_LENGTH].int(), t5.int()


def start_workers(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def build_pool(
    vae: AutoencoderKL,
    renderer: Renderer,
    tokenizers: Path,
    workers: ProcessPoolExecutor,
    seconds: float,
    most: int,
    seed: int,
) -> Pool:
    """Encodes scenes until the time is over or `most` are there."""
    device = renderer.device
    latents = torch.empty(most, TOKENS, TOKEN_CHANNELS, dtype=torch.bfloat16, device=device)
    clip = torch.empty(most, CLIP_TRAINED_LENGTH, dtype=torch.int32, device=device)
    t5 = torch.empty(most, T5_LENGTH, dtype=torch.int32, device=device)
    job = min(_JOB, most)
    pending: deque[Future[tuple[Scenes, Tensor, Tensor]]] = deque()
    start, filled, jobs = time.monotonic(), 0, 0
    while filled + job <= most and (time.monotonic() - start < seconds or filled == 0):
        while len(pending) < 32:
            jobs += 1
            pending.append(workers.submit(_describe, tokenizers, seed * 1_000_003 + jobs, job))
        scenes, clip_ids, t5_ids = pending.popleft().result()
        for at in range(0, job, 256):
            latent = encode(vae, renderer(scenes.slice(at, min(at + 256, job))))
            latent = (latent - vae.config.shift_factor) * vae.config.scaling_factor
            latents[filled + at : filled + at + len(latent)] = pack(latent)
        clip[filled : filled + job] = clip_ids.to(device)
        t5[filled : filled + job] = t5_ids.to(device)
        filled += job
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the clock should see the work, not its submission
    for future in pending:
        future.cancel()
    print(f"pool: {filled} scenes in {time.monotonic() - start:.0f} s", flush=True)
    return Pool(latents[:filled], clip[:filled], t5[:filled])


def save_pool(pool: Pool, path: Path) -> None:
    """For another process: written under another name first, so that it is never read half done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({"latents": pool.latents.cpu(), "clip": pool.clip.cpu(), "t5": pool.t5.cpu()}, part)
    part.rename(path)


def wait_for(path: Path, patience: float = 300) -> None:
    start = time.monotonic()
    while not path.exists():
        if time.monotonic() - start > patience:
            raise TimeoutError(f"no {path.name} after {patience:.0f} s")
        time.sleep(0.2)


def wait_for_pool(path: Path, device: torch.device) -> Pool:
    """Each process trains on its own pool; more pools are more scenes."""
    wait_for(path)
    state = torch.load(path, mmap=True, weights_only=True)
    return Pool(*(state[name].to(device) for name in ("latents", "clip", "t5")))
