"""Data parallelism over the GPUs of one host: one process a GPU, gradients averaged in one flat buffer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def log(self, text: str) -> None:
        if self.leads:
            print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        if self.size > 1:
            dist.broadcast(tensor, source)
        return tensor

    def wait(self) -> None:
        """Until every process is here, and its device too."""
        if self.size > 1:
            dist.barrier()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def synchronise(self, modules: Iterable[nn.Module]) -> None:
        """Every process starts from the leader's weights."""
        for module in modules:
            for parameter in module.parameters():
                self.broadcast(parameter.data)

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def join_team() -> Team:
    """Reads torchrun's environment; without it, a team of one."""
    rank, size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Team(rank, size, device)


class FlatGradients:
    """All gradients as views of one buffer: one all-reduce and one norm a step."""

    def __init__(self, parameters: list[nn.Parameter], team: Team) -> None:
        self.team = team
        self.buffer = torch.zeros(sum(p.numel() for p in parameters), device=team.device)
        offset = 0
        for p in parameters:
            # Same strides as the parameter: the fused optimizer and channels-last weights ask for it.
            view = self.buffer[offset : offset + p.numel()].as_strided(p.shape, p.stride(), offset)
            p.grad = view
            offset += p.numel()

    def zero(self) -> None:
        self.buffer.zero_()

    def average_and_clip(self, limit: float) -> None:
        if self.team.size > 1:
            dist.all_reduce(self.buffer)
            self.buffer /= self.team.size
        # No host synchronisation: the factor stays on the device.
        self.buffer.mul_((limit / (self.buffer.norm() + 1e-6)).clamp(max=1.0))


class Schedule:
    """Share of a stage's wall-clock time that has passed, equal in every process.

    A stage lasts a given number of seconds, not steps, and the learning rate follows this share; the
    processes must agree on it or their weights would drift apart, so the leader's clock counts.
    """

    def __init__(self, team: Team, seconds: float, every: int = 20, most_steps: int | None = None) -> None:
        self.team, self.seconds, self.every, self.most_steps = team, seconds, every, most_steps
        self.start = time.monotonic()
        self.step = 0
        self.share = 0.0

    def advance(self) -> bool:
        """Called before every step; False once the stage is over."""
        if self.step % self.every == 0:
            passed = torch.tensor(self.elapsed() / self.seconds, device=self.team.device, dtype=torch.float64)
            self.share = float(self.team.broadcast(passed))
            if self.most_steps is not None:
                self.share = max(self.share, self.step / self.most_steps)
        self.step += 1
        return self.share < 1

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def rate(self, peak: float, warm_up: int, anneal_from: float, floor: float = 0.005) -> float:
        """Linear warm-up over steps, a plateau, then a linear way down to `floor` of the peak."""
        down = min(1.0, (1 - self.share) / (1 - anneal_from))
        return peak * min(1.0, self.step / warm_up) * max(floor, down)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


class Average:
    """Exponential moving average of parameters; short at first, so that it forgets the start."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        for p, value in zip(self.parameters, self.values, strict=True):
            p.copy_(value)
