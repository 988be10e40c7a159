"""Stage 2b: the text encoders learn to tell which emoji a caption puts where, before any picture is made.

Without it word order ("a fox above a star" or "a star above a fox") stays a guess: both orders look alike
to flow matching until layout depends on them. Texts alone teach it in minutes on one CPU core.
Every T5 token of a name states its emoji and its place, linearly, so that the transformer's image
tokens need no more than attend to the tokens of their own place. CLIP's pooled vector is read through
one hidden layer, as the transformer's modulations read it.

CLIP learns in two steps: who is named first, who second and in which relation can be read linearly after
150 steps, if asked for (`ORDER_HEADS`); who stands where is a product of the two and follows. Asked for
places alone it stays where order is a guess (0.36 after 300 steps).

Held-out main captions that T5 states without an error, after steps of 128 captions on a CPU:

  start of T5's table of positions, read by       optimizer      50     100    150    300
  T5's own, a query per place                     AdamW 6e-4     0.01   0.35   0.45   0.46
  T5's own, every token                           AdamW 2e-3     0.43   0.39   0.40
  models._point_heads, every token                AdamW 2e-3     0.88   0.95   0.97   0.993
  models._point_heads, every token                Muon           0.992  0.971  0.967  0.993
  the same, the rate annealed over 100 steps      Muon           0.993  0.997
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import main_captions, training_captions
from .export import round_to_bf16
from .models import CLIP_WIDTH, T5_WIDTH, TextEncoders
from .muon import MuonAdamW, split_parameters
from .pool import CLIP_TRAINED_LENGTH
from .scenes import CONCEPTS, draw_scenes
from .scorer import HEADS
from .targets import NOTHING, ORDER_HEADS, UNKNOWN, Targets, read_captions
from .vocabulary import Tokenizers

_CAPTIONS = 60_000
_HELD_OUT = 1000
_MUON_RATIO = 1.33
_HELD_OUT_SEED = 880_001


class Readers(nn.Module):
    """Throw-away heads: what they can read, the transformer can learn to read."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Linear(T5_WIDTH, NOTHING + 1)
        self.concept = nn.Linear(T5_WIDTH, len(CONCEPTS))
        self.order = nn.Linear(CLIP_WIDTH, sum(ORDER_HEADS.values()))
        # As deep as the transformer's own way from the pooled vector to its modulations.
        first, second, last = nn.Linear(CLIP_WIDTH, 256), nn.Linear(256, 256), nn.Linear(256, sum(HEADS.values()))
        self.scene = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)

    def by_t5(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of places [B, 32, 6] and of concepts [B, 32, 100]."""
        return self.place(hidden), self.concept(hidden)

    def by_clip(self, pooled: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Logits [B, classes] of every head of the scorer and of ORDER_HEADS."""
        scene, order = self.scene(pooled), self.order(pooled)
        return scene.split(tuple(HEADS.values()), 1), order.split(tuple(ORDER_HEADS.values()), 1)


def _mean_loss(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Cross entropy over the entries where `counts` holds, without a wait for the device."""
    losses = F.cross_entropy(logits.flatten(0, -2).float(), target.flatten().long(), reduction="none")
    return (losses * counts.flatten()).sum() / counts.sum().clamp(min=1)


def binding_loss(readers: Readers, hidden: Tensor, pooled: Tensor, targets: Targets) -> Tensor:
    place, concept = readers.by_t5(hidden)
    scene, order = readers.by_clip(pooled)
    named = (targets.place != NOTHING) & (targets.place != UNKNOWN)
    # Names are a tenth of the tokens: the others are averaged apart, or they would drown them.
    of_t5 = (
        _mean_loss(place, targets.place, named)
        + _mean_loss(place, targets.place, targets.place == NOTHING)
        + 0.5 * _mean_loss(concept, targets.concept, targets.concept != UNKNOWN)
    )
    wanted = (*targets.scene.unbind(1), *targets.order.unbind(1))
    of_clip = [_mean_loss(logits, t, t != UNKNOWN) for logits, t in zip((*scene, *order), wanted, strict=True)]
    return of_t5 + torch.stack(of_clip[: len(HEADS)]).sum() / 3 + torch.stack(of_clip[len(HEADS) :]).sum()


@dataclass
class _Captions:
    clip: Tensor
    t5: Tensor
    targets: Targets


def _make_captions(tokenizers: Tokenizers, count: int, seed: int, main: bool, device: torch.device) -> _Captions:
    scenes = draw_scenes(count, torch.Generator().manual_seed(seed))
    captions = main_captions(scenes) if main else training_captions(scenes, random.Random(seed))
    clip, t5 = tokenizers(captions)
    targets = read_captions(captions, scenes, tokenizers)
    return _Captions(clip[:, :CLIP_TRAINED_LENGTH].to(device), t5.to(device), targets.to(device))


@torch.no_grad()
def _measure(text: TextEncoders, readers: Readers, test: _Captions) -> dict[str, float]:
    """Share of captions without any error: T5 in every token's place and concept, CLIP in all five positions."""
    # `forward`: the compiled call would be compiled again without gradients.
    hidden, pooled = text.forward(test.clip, test.t5)
    place, concept = readers.by_t5(hidden)
    scene, _ = readers.by_clip(pooled)
    wanted = test.targets
    placed = (place.argmax(-1) == wanted.place).all(1)
    named = ((concept.argmax(-1) == wanted.concept) | (wanted.concept == UNKNOWN)).all(1)
    found = torch.stack([logits.argmax(-1) for logits in scene], 1)
    read = (found == wanted.scene)[:, :NOTHING].all(1)
    return {"T5": float((placed & named).float().mean()), "CLIP": float(read.float().mean())}


def teach_binding(
    text: TextEncoders,
    readers: Readers,
    tokenizers: Tokenizers,
    seconds: float,
    batch: int,
    rate: float,
    seed: int,
    most_steps: int | None = None,
) -> dict[str, float]:
    """Trains both in place until the time is over and rounds the encoders to bf16, as they will be stored.

    Returns the accuracies on held-out main captions, measured after the rounding.
    """
    text.requires_grad_(True)
    device = next(text.parameters()).device
    torch.manual_seed(seed)
    count = _CAPTIONS if most_steps is None else 4 * batch
    data = _make_captions(tokenizers, count, seed, False, device)
    test = _make_captions(tokenizers, min(count, _HELD_OUT), _HELD_OUT_SEED, True, device)
    parameters = [*text.parameters(), *readers.parameters()]
    blocks = [*text.t5.encoder.block, *text.clip.encoder.layers]
    optimizer = MuonAdamW(*split_parameters(blocks, parameters), _MUON_RATIO, fused=device.type == "cuda")
    start, step = time.monotonic(), 0
    while (done := (time.monotonic() - start) / seconds) < 1 and step != most_steps:
        chosen = torch.randint(0, count, (batch,), device=device)
        with torch.autocast(device.type, torch.bfloat16):
            hidden, pooled = text(data.clip[chosen], data.t5[chosen])
        loss = binding_loss(readers, hidden.float(), pooled.float(), data.targets[chosen])
        for p in parameters:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(rate * min(1.0, (step + 1) / 50) * max(0.01, min(1.0, 1.6 * (1 - done))))
        step += 1
        if step % 100 == 0:
            print(f"binding: step {step}, loss {loss.item():.3f}, {_measure(text, readers, test)}", flush=True)
    round_to_bf16(text)
    return _measure(text, readers, test) | {"steps": step}
