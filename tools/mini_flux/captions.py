"""Captions of scenes: one main form, and variants so that a user's own wording works too."""

from __future__ import annotations

import random

from .scenes import COLOURS, CONCEPTS, PATTERNS, RELATIONS, Scenes

# Names that English uses without "a": plurals and stuffs.
WITHOUT_ARTICLE: frozenset[str] = frozenset({"grapes", "cherries", "bread", "popcorn", "broccoli", "fire"})
VARIANT_SHARE = 0.3

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
_VAGUE = ("next to", "beside", "and")
_PREFIXES = ("a picture of ", "a photo of ", "an image of ", "a drawing of ", "an illustration of ", "an emoji of ")
_COLOUR_NAMES = tuple(COLOURS)


def with_article(name: str) -> str:
    if name in WITHOUT_ARTICLE:
        return name
    return ("an " if name[0] in "aeiou" else "a ") + name


def main_caption(scenes: Scenes, i: int) -> str:
    """'a fox above a red apple on a striped blue background'."""
    text = with_article(CONCEPTS[int(scenes.first[i])])
    if bool(scenes.pair[i]):
        text += f" {RELATIONS[int(scenes.relation[i])]} {with_article(CONCEPTS[int(scenes.second[i])])}"
    ground = f"{PATTERNS[int(scenes.pattern[i])]} {_COLOUR_NAMES[int(scenes.colour[i])]} background"
    return f"{text} on {with_article(ground)}"


def _variant(scenes: Scenes, i: int, rng: random.Random) -> str:
    def noun(name: str) -> str:
        return rng.choice((with_article, with_article, lambda n: "the " + n, lambda n: n))(name)

    text = noun(CONCEPTS[int(scenes.first[i])])
    if bool(scenes.pair[i]):
        relation = RELATIONS[int(scenes.relation[i])]
        words = rng.choice(_SYNONYMS[relation])
        if rng.random() < 0.15 and relation in ("left of", "right of"):
            words = rng.choice(_VAGUE)
        text += f" {words} {noun(CONCEPTS[int(scenes.second[i])])}"
    pattern, colour = PATTERNS[int(scenes.pattern[i])], _COLOUR_NAMES[int(scenes.colour[i])]
    form = rng.random()
    if form < 0.35:
        text += f" on {with_article(f'{pattern} {colour} background')}"
    elif form < 0.50:
        text += f" {rng.choice(('with', 'against', 'in front of'))} {with_article(f'{pattern} {colour} background')}"
    elif form < 0.60:
        text += f" on {with_article(f'{colour} {pattern} background')}"
    elif form < 0.65:
        text += f", {pattern} {colour} background"
    elif form < 0.85 and pattern == "plain":  # a colour alone means a plain background
        text += f" on {with_article(f'{colour} background')}"
    if rng.random() < 0.25:
        text = rng.choice(_PREFIXES) + text
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.2:
        text += "."
    return text


def is_vague(words: str) -> bool:
    """Do the words between two names leave open who stands where?"""
    return any(f" {vague} " in words for vague in _VAGUE)


def training_captions(scenes: Scenes, rng: random.Random) -> list[str]:
    """Main forms with VARIANT_SHARE variants; what a variant leaves out stays random in its picture."""
    return [
        _variant(scenes, i, rng) if rng.random() < VARIANT_SHARE else main_caption(scenes, i)
        for i in range(len(scenes))
    ]


def main_captions(scenes: Scenes) -> list[str]:
    return [main_caption(scenes, i) for i in range(len(scenes))]
