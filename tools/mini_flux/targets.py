"""What a caption states, per T5 token and per caption: the labels of stage 2b."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .captions import is_vague
from .scenes import COLOURS, CONCEPTS, PATTERNS, PLACES, POSITIONS, RELATIONS, Scenes, labels
from .vocabulary import Tokenizers

NOTHING = len(POSITIONS)  # the place of a token that is no part of an emoji's name
UNKNOWN = -100  # cross entropy's default for "ignore"
# What the words say before anything is concluded about places; the last class is "no second emoji".
ORDER_HEADS: dict[str, int] = {
    "first": len(CONCEPTS),
    "second": len(CONCEPTS) + 1,
    "relation": len(RELATIONS) + 1,
}
_PATTERN_HEAD = len(POSITIONS) + 1
_COLOUR_HEAD = len(POSITIONS)


@dataclass
class Targets:
    """All int8; UNKNOWN where the caption leaves it open."""

    place: Tensor  # [N, 32] per T5 token: index into POSITIONS, or NOTHING
    concept: Tensor  # [N, 32] per T5 token of an emoji's name: index into CONCEPTS, otherwise UNKNOWN
    scene: Tensor  # [N, 7] per head of the scorer, in the order of HEADS
    order: Tensor  # [N, 3] per head of ORDER_HEADS

    def __getitem__(self, index: Tensor) -> Targets:
        return Targets(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device) -> Targets:
        return Targets(*(getattr(self, f.name).to(device) for f in fields(self)))


def read_captions(captions: list[str], scenes: Scenes, tokenizers: Tokenizers) -> Targets:
    """Finds the emoji's names in the captions that were made from `scenes`."""
    offsets = tokenizers.t5_offsets(captions)
    scene = torch.stack(list(labels(scenes, torch.device("cpu")).values()), 1).to(torch.int8)
    alone = ~scenes.pair
    second = scenes.second.masked_fill(alone, len(CONCEPTS))
    relation = scenes.relation.masked_fill(alone, len(RELATIONS))
    order = torch.stack([scenes.first, second, relation], 1).to(torch.int8)
    places, concepts = [], []
    for i, caption in enumerate(captions):
        text, end = caption.lower(), 0
        named = [(int(scenes.first[i]), POSITIONS.index("centre"))]
        if bool(scenes.pair[i]):
            where = PLACES[RELATIONS[int(scenes.relation[i])]]
            both = (int(scenes.first[i]), int(scenes.second[i]))
            named = [(name, POSITIONS.index(p)) for name, p in zip(both, where, strict=True)]
        spans = []
        for name, place in named:
            start = text.index(CONCEPTS[name], end)
            end = start + len(CONCEPTS[name])
            spans.append((start, end, place, name))
        if len(spans) == 2 and is_vague(text[spans[0][1] : spans[1][0]]):
            spans = [(start, stop, UNKNOWN, name) for start, stop, _, name in spans]
            scene[i, : len(POSITIONS)] = order[i, 2] = UNKNOWN
        _read_background(text[end:], scene[i])
        found = [_at(spans, a, b) for a, b in offsets[i]]
        places.append([place for place, _ in found])
        concepts.append([name for _, name in found])
    return Targets(torch.tensor(places, dtype=torch.int8), torch.tensor(concepts, dtype=torch.int8), scene, order)


def _at(spans: list[tuple[int, int, int, int]], begin: int, end: int) -> tuple[int, int]:
    """Place and concept of a token of the characters [begin, end)."""
    for start, stop, place, name in spans:
        if begin < stop and end > start:
            return place, name
    return NOTHING, UNKNOWN


def _read_background(rest: str, scene: Tensor) -> None:
    """Forgets what the caption does not say; a colour alone means a plain background."""
    if not any(colour in rest for colour in COLOURS):
        scene[_COLOUR_HEAD:] = UNKNOWN
    elif not any(pattern in rest for pattern in PATTERNS) and int(scene[_PATTERN_HEAD]) != 0:
        scene[_PATTERN_HEAD] = UNKNOWN
