"""Muon for the blocks' matrices, AdamW for the rest: fewer steps to the same loss than AdamW alone.

Muon's update is the momentum's nearest (semi-)orthogonal matrix. Matrices of one shape are handled as one
batch, so a step costs a handful of launches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
# Scales an orthogonal update to the element size of a usual AdamW update, so both take similar rates.
_LIKE_ADAM = 0.2
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration
_ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """[N, rows, columns] -> nearest semi-orthogonal matrices, to bf16 precision."""
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class MuonAdamW:
    """Both optimizers behind one `step`; `rate` is AdamW's, Muon's is `ratio` times that."""

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter], ratio: float, fused: bool) -> None:
        self.ratio, self.weight_decay = ratio, 0.01
        groups: dict[torch.Size, list[nn.Parameter]] = {}
        for p in matrices:
            groups.setdefault(p.shape, []).append(p)
        self.groups = list(groups.values())
        self.momenta = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]
        decayed = {"params": [p for p in others if p.ndim >= 2], "weight_decay": self.weight_decay}
        plain = {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0}
        self.adam = torch.optim.AdamW([decayed, plain], betas=(0.9, 0.99), fused=fused)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        for parameters, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([p.grad for p in parameters if p.grad is not None])
            momentum.lerp_(gradient, 1 - _MOMENTUM)
            update = orthogonalise(torch.lerp(gradient, momentum, _MOMENTUM)).float()
            size = self.ratio * rate * _LIKE_ADAM * max(update.shape[1:]) ** 0.5
            torch._foreach_mul_(parameters, 1 - self.ratio * rate * self.weight_decay)
            torch._foreach_add_(parameters, list(update.unbind()), alpha=-size)


def split_parameters(
    blocks: list[nn.Module], every: list[nn.Parameter]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices of attention and feed-forward, and everything else (modulations start at zero: AdamW)."""
    matrices = [
        module.weight
        for block in blocks
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("norm")
    ]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in every if id(p) not in chosen]
