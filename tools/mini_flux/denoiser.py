"""Stages 3 and 4: flow matching with dropped captions, then guidance distillation."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from .distributed import Average, FlatGradients, Schedule, Team, set_rate
from .models import TextEncoders, build_transformer, position_ids
from .muon import MuonAdamW, split_parameters
from .pool import Pool

GUIDANCE_RANGE = (1.0, 5.0)
DEFAULT_GUIDANCE = 3.5  # FluxPipeline's
_DROPPED_CAPTIONS = 0.1
_MUON_RATIO = 1.33
_EMA_DECAY = 0.9995
_DISTIL_EMA_DECAY = 0.999  # a shorter stage


@dataclass(frozen=True)
class DenoiserOptions:
    seconds: float
    batch: int  # per process
    rate: float
    seed: int
    most_steps: int | None = None
    validate_every: int = 1500  # steps


@dataclass(frozen=True)
class EmptyCaption:
    clip: Tensor  # [32]
    t5: Tensor  # [32]


class Denoiser:
    """The transformer and its text encoders, with the calls that training needs.

    The encoders are frozen: the gradients of a transformer that cannot read yet destroy what stage 2b
    taught them, and order never comes back. A two-block stand-in that names the emoji at every place
    had both of a pair right in 0.99 of the captions after 100 steps of 64 with frozen encoders (no two
    swapped), and in 0.10 after 300 steps with the same encoders trained along (0.12 swapped).
    """

    def __init__(self, transformer: FluxTransformer2DModel, text: TextEncoders, empty: EmptyCaption) -> None:
        self.transformer, self.text, self.empty = transformer, text.requires_grad_(False), empty
        self.device = next(transformer.parameters()).device
        self.image_ids, self.text_ids = position_ids(self.device)

    def compile(self) -> None:
        """Per block: two kinds of blocks make three graphs, whatever the depth."""
        self.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)
        self.text.compile(dynamic=False)

    def velocity(self, latents: Tensor, t: Tensor, guidance: Tensor, features: tuple[Tensor, Tensor]) -> Tensor:
        hidden, pooled = features
        return self.transformer(
            hidden_states=latents,
            encoder_hidden_states=hidden,
            pooled_projections=pooled,
            timestep=t,
            guidance=guidance,
            img_ids=self.image_ids,
            txt_ids=self.text_ids,
            return_dict=False,
        )[0].float()

    def parameters(self) -> list[nn.Parameter]:
        """Those that training reaches."""
        return [p for p in self.transformer.parameters() if p.requires_grad]

    @torch.no_grad()
    def features(self, clip: Tensor, t5: Tensor) -> tuple[Tensor, Tensor]:
        """T5's tokens and CLIP's pooled vector, through the compiled graph."""
        return self.text(clip, t5)


def draw_batch(pool: Pool, empty: EmptyCaption, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Latents, their noised form, noise levels and token ids, some captions emptied."""
    device = pool.latents.device
    index = torch.randint(0, len(pool), (count,), device=device)
    clean = pool.latents[index].float()
    noise = torch.randn_like(clean)
    # Logit-normal, shifted towards noise as the scheduler's sigmas are at this size (e^0.5), with a
    # uniform share so that no level is unknown.
    t = torch.sigmoid(torch.randn(count, device=device) + 0.5)
    t = torch.where(torch.rand(count, device=device) < 0.1, torch.rand(count, device=device), t)
    noised = torch.lerp(clean, noise, t[:, None, None])
    dropped = torch.rand(count, 1, device=device) < _DROPPED_CAPTIONS
    clip = torch.where(dropped, empty.clip, pool.clip[index])
    t5 = torch.where(dropped, empty.t5, pool.t5[index])
    return noise - clean, noised, t, clip, t5


def _draw_guidance(count: int, device: torch.device) -> Tensor:
    low, high = GUIDANCE_RANGE
    return low + (high - low) * torch.rand(count, device=device)


def flow_loss(model: Denoiser, pool: Pool, count: int) -> Tensor:
    target, noised, t, clip, t5 = draw_batch(pool, model.empty, count)
    with torch.autocast(model.device.type, torch.bfloat16):
        # A random guidance value here teaches the model to ignore it, a neutral start for stage 4.
        guidance = _draw_guidance(count, model.device)
        velocity = model.velocity(noised, t, guidance, model.features(clip, t5))
    return F.mse_loss(velocity, target)


def _optimizer(parameters: list[nn.Parameter], rate: float, device: torch.device) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.99), fused=device.type == "cuda")


def _optimise(
    name: str,
    model: Denoiser,
    team: Team,
    options: DenoiserOptions,
    ema_decay: float,
    loss_of_batch: Callable[[], Tensor],
    update: Callable[[Schedule], None],
    validate: Callable[[], None] | None = None,
) -> int:
    """Leaves the averaged weights in the model; returns the number of steps."""
    parameters = model.parameters()
    gradients, average = FlatGradients(parameters, team), Average(parameters, ema_decay)
    schedule = Schedule(team, options.seconds, most_steps=options.most_steps)
    losses: list[Tensor] = []
    while schedule.advance():
        gradients.zero()
        loss = loss_of_batch()
        loss.backward()
        gradients.average_and_clip(1.0)
        update(schedule)
        average.update()
        losses.append(loss.detach())
        if schedule.step % 500 == 0:
            recent = float(torch.stack(losses).mean())
            losses.clear()
            team.log(f"{name}: step {schedule.step}, {schedule.elapsed():.0f} s, loss {recent:.5f}")
        if validate is not None and schedule.step % options.validate_every == 0:
            validate()
    average.apply()
    team.log(f"{name}: {schedule.step} steps of {options.batch} x {team.size} in {schedule.elapsed():.0f} s")
    return schedule.step


def train_denoiser(
    model: Denoiser, pool: Pool, team: Team, options: DenoiserOptions, validate: Callable[[], None] | None = None
) -> int:
    """Leaves the averaged weights in the model; returns the number of steps."""
    torch.manual_seed(options.seed + team.rank)
    blocks = [*model.transformer.transformer_blocks, *model.transformer.single_transformer_blocks]
    matrices, others = split_parameters(blocks, model.parameters())
    optimizer = MuonAdamW(matrices, others, _MUON_RATIO, fused=model.device.type == "cuda")

    def update(schedule: Schedule) -> None:
        optimizer.step(schedule.rate(options.rate, warm_up=400, anneal_from=0.4))

    loss = functools.partial(flow_loss, model, pool, options.batch)
    return _optimise("denoiser", model, team, options, _EMA_DECAY, loss, update, validate)


def copy_transformer(source: FluxTransformer2DModel, dtype: torch.dtype) -> FluxTransformer2DModel:
    """An uncompiled copy, frozen."""
    device = next(source.parameters()).device
    other = build_transformer().to(device)
    other.load_state_dict(copy.copy(source.state_dict()))
    return other.to(dtype).eval().requires_grad_(False)


def make_teacher(student: Denoiser, compiled: bool) -> Denoiser:
    """A copy to learn from; the uncompiled one is for sampling, at batch sizes of its own."""
    if not compiled:
        return Denoiser(copy_transformer(student.transformer, torch.bfloat16), student.text, student.empty)
    # In everything the compiler looks at like the student (also trainable), so its graphs serve both.
    transformer = copy_transformer(student.transformer, torch.float32).train().requires_grad_(True)
    transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)
    return Denoiser(transformer, student.text, student.empty)


def distillation_loss(student: Denoiser, teacher: Denoiser, pool: Pool, count: int, slope: float) -> Tensor:
    """One forward with guidance g should give what two forwards at scale 1 + slope (g - 1) give."""
    _, noised, t, clip, t5 = draw_batch(pool, student.empty, count)
    guidance = _draw_guidance(count, student.device)
    with torch.autocast(student.device.type, torch.bfloat16):
        features = student.features(clip, t5)
        no_features = student.features(*(e.repeat(count, 1) for e in (student.empty.clip, student.empty.t5)))
        with_text = teacher.velocity(noised, t, guidance, features).detach()
        without = teacher.velocity(noised, t, guidance, no_features).detach()
        scale = (1 + slope * (guidance - 1))[:, None, None]
        target = torch.lerp(without, with_text, scale)
        velocity = student.velocity(noised, t, guidance, features)
    return F.mse_loss(velocity, target)


def distil_guidance(
    student: Denoiser, teacher: Denoiser, pool: Pool, team: Team, slope: float, options: DenoiserOptions
) -> int:
    """Leaves the averaged weights in the student; returns the number of steps."""
    torch.manual_seed(options.seed + 1000 + team.rank)
    optimizer = _optimizer(student.parameters(), options.rate, student.device)

    def update(schedule: Schedule) -> None:
        set_rate(optimizer, schedule.rate(options.rate, warm_up=100, anneal_from=0.3))
        optimizer.step()

    loss = functools.partial(distillation_loss, student, teacher, pool, options.batch, slope)
    return _optimise("guidance", student, team, options, _DISTIL_EMA_DECAY, loss, update)


def rehearse(model: Denoiser, team: Team, batch: int) -> None:
    """Compiles everything and times a step on random data, before hours (or minutes) are spent on it."""
    device = team.device
    pool = Pool(
        torch.randn(batch, model.image_ids.shape[0], model.transformer.config.in_channels, device=device).bfloat16(),
        model.empty.clip.expand(batch, -1).contiguous(),
        model.empty.t5.expand(batch, -1).contiguous(),
    )
    parameters = model.parameters()
    gradients = FlatGradients(parameters, team)
    start, timed = time.monotonic(), 5
    for step in range(3 + timed):
        if step == 3:
            torch.cuda.synchronize(device) if device.type == "cuda" else None
            team.log(f"rehearsal: compiled in {time.monotonic() - start:.0f} s")
            start = time.monotonic()
        gradients.zero()
        loss = flow_loss(model, pool, batch)
        loss.backward()
        gradients.average_and_clip(1.0)
    untouched = sum(p.numel() for p in parameters if not bool(p.grad.abs().sum() > 0))
    team.log(
        f"rehearsal: {1000 * (time.monotonic() - start) / timed:.1f} ms a step of {batch}, loss {loss.item():.3f}, "
        f"{untouched} of {gradients.buffer.numel()} parameters without a gradient (zero gates explain most)"
    )
    for p in parameters:
        p.grad = None
