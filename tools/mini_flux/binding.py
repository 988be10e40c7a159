"""Stage 2b: the text encoders learn to tell which emoji a caption puts where, before any picture is made.

Without it word order ("a fox above a star" or "a star above a fox") is learned last and late by flow
matching: both orders look alike to the loss until layout depends on them. Texts alone teach it in
minutes. T5's tokens are read as the transformer's image tokens read them, by attention from a position;
CLIP's pooled vector is read linearly.
"""

from __future__ import annotations

import random
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import training_captions
from .distributed import set_rate
from .models import CLIP_WIDTH, T5_WIDTH, TextEncoders
from .pool import CLIP_TRAINED_LENGTH
from .scenes import draw_scenes, labels
from .scorer import HEADS
from .vocabulary import Tokenizers

_CAPTIONS = 60_000


class Readers(nn.Module):
    """Throw-away heads: what they can read, the transformer can learn to read."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.ParameterDict({name: nn.Parameter(torch.randn(T5_WIDTH) * 0.05) for name in HEADS})
        self.t5 = nn.ModuleDict({name: nn.Linear(T5_WIDTH, size) for name, size in HEADS.items()})
        self.clip = nn.ModuleDict({name: nn.Linear(CLIP_WIDTH, size) for name, size in HEADS.items()})

    def forward(self, hidden: Tensor, pooled: Tensor, name: str) -> tuple[Tensor, Tensor]:
        weights = (hidden @ self.queries[name]).softmax(1)
        return self.t5[name](torch.einsum("bl,bld->bd", weights, hidden)), self.clip[name](pooled)


def teach_binding(
    text: TextEncoders, tokenizers: Tokenizers, seconds: float, batch: int, rate: float, anchor: float, seed: int
) -> dict[str, float]:
    """`anchor` > 0 holds the features near their present values, for encoders that a transformer already reads."""
    device = next(text.parameters()).device
    torch.manual_seed(seed)
    described = draw_scenes(_CAPTIONS, torch.Generator().manual_seed(seed))
    clip, t5 = tokenizers(training_captions(described, random.Random(seed)))
    clip, t5 = clip[:, :CLIP_TRAINED_LENGTH].to(device), t5.to(device)
    asked = labels(described, device)
    readers = Readers().to(device)
    parameters = [*text.parameters(), *readers.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": list(text.parameters())}, {"params": list(readers.parameters())}], rate, weight_decay=0.0
    )
    before = None
    if anchor > 0:
        before = TextEncoders(text.clip.config.vocab_size, text.t5.config.vocab_size).to(device)
        before.load_state_dict(text.state_dict())
        before.requires_grad_(False)
    start, step = time.monotonic(), 0
    right: dict[str, float] = {}
    while (done := (time.monotonic() - start) / seconds) < 1:
        chosen = torch.randint(0, _CAPTIONS, (batch,), device=device)
        hidden, pooled = text(clip[chosen], t5[chosen])
        losses, hits = [], {}
        for name in HEADS:
            by_t5, by_clip = readers(hidden, pooled, name)
            target = asked[name][chosen]
            losses += [F.cross_entropy(by_t5, target), F.cross_entropy(by_clip, target)]
            hits[name] = ((by_t5.argmax(1) == target).float().mean(), (by_clip.argmax(1) == target).float().mean())
        loss = torch.stack(losses).mean()
        if before is not None:
            with torch.no_grad():
                old_hidden, old_pooled = before(clip[chosen], t5[chosen])
            drift = (F.mse_loss(hidden, old_hidden) / old_hidden.var()) + F.mse_loss(
                pooled, old_pooled
            ) / old_pooled.var()
            loss = loss + anchor * drift
        set_rate(optimizer, rate * min(1.0, (step + 1) / 50) * max(0.01, min(1.0, 2 * (1 - done))))
        optimizer.param_groups[1]["lr"] *= 3  # the readers start from nothing
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            left, by_clip = (float(x) for x in hits["left"])
            far = f", drift {float(drift):.3f}" if before is not None else ""
            print(
                f"binding: step {step}, loss {loss.item():.3f}, left: T5 {left:.3f}, CLIP {by_clip:.3f}{far}",
                flush=True,
            )
        right = {name: float(pair[0]) for name, pair in hits.items()}
    return right
