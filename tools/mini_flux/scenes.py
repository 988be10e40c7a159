"""Scenes: one or two emoji in a spatial relation on a coloured, patterned background.

The pictures come from Debian's fonts-noto-color-emoji, their names from Debian's
unicode-cldr-core. Scenes are rendered on the accelerator in batches, so training
never repeats a picture and needs no data on disk but the glyphs (about 1 MB).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
ANNOTATIONS = Path("/usr/share/unicode/cldr/common/annotations/en.xml")
IMAGE_SIZE = 256
GLYPH_SIZE = 136  # the font's only strike is 136 x 128

# Chosen by eye from the font: no two look alike, every name is something a person would type.
CONCEPTS: tuple[str, ...] = (
    "fox", "lion", "tiger face", "horse face", "cow face", "pig face", "rabbit face", "bear", "panda", "koala",
    "frog", "monkey face", "mouse face", "penguin", "owl", "elephant", "zebra", "giraffe", "turtle", "snake",
    "octopus", "crab", "tropical fish", "dolphin", "shark", "butterfly", "lady beetle", "honeybee", "snail",
    "flamingo", "parrot", "cat face", "dog face", "teddy bear", "red apple", "banana", "grapes", "watermelon",
    "strawberry", "pineapple", "cherries", "lemon", "peach", "kiwi fruit", "avocado", "eggplant", "carrot",
    "broccoli", "mushroom", "hot pepper", "bread", "cheese wedge", "hamburger", "pizza", "taco", "hot dog",
    "popcorn", "doughnut", "cookie", "birthday cake", "lollipop", "coconut", "pretzel", "croissant", "sunflower",
    "tulip", "rose", "cactus", "palm tree", "maple leaf", "robot", "alien", "ghost", "jack-o-lantern", "rocket",
    "automobile", "bus", "airplane", "sailboat", "house", "soccer ball", "basketball", "guitar", "crown",
    "umbrella", "star", "fire", "balloon", "wrapped gift", "trophy", "key", "light bulb", "alarm clock",
    "red heart", "helicopter", "tractor", "locomotive", "camera", "gem stone", "anchor",
)  # fmt: skip
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.25, 0.25),
    "orange": (0.95, 0.60, 0.25),
    "yellow": (0.97, 0.88, 0.45),
    "green": (0.45, 0.75, 0.45),
    "blue": (0.35, 0.55, 0.90),
    "purple": (0.60, 0.45, 0.80),
    "pink": (0.97, 0.70, 0.80),
    "white": (0.96, 0.96, 0.96),
    "gray": (0.55, 0.57, 0.60),
    "black": (0.12, 0.12, 0.14),
}
PATTERNS: tuple[str, ...] = ("plain", "striped", "dotted", "checkered")
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
POSITIONS: tuple[str, ...] = ("left", "right", "top", "bottom", "centre")

# Where the first and the second emoji of each relation stand.
PLACES: dict[str, tuple[str, str]] = {
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
}
_PAIR_SHARE = 0.7


@dataclass
class Scenes:
    """A batch of scene descriptions; every field is a CPU tensor of length B."""

    first: Tensor
    second: Tensor
    relation: Tensor
    pair: Tensor  # bool: two emoji, otherwise `first` alone in the centre
    colour: Tensor
    pattern: Tensor

    def __len__(self) -> int:
        return len(self.first)

    def slice(self, start: int, stop: int) -> Scenes:
        return Scenes(*(getattr(self, f.name)[start:stop] for f in fields(self)))


def extract_glyphs(target: Path) -> None:
    """Writes the RGBA bitmaps of CONCEPTS, in their order, to an .npz file."""
    from fontTools.ttLib import TTFont  # only this step needs the font packages
    from PIL import Image

    codes: dict[str, int] = {}
    for node in ElementTree.parse(ANNOTATIONS).iter("annotation"):
        text = node.get("cp", "").replace("\ufe0f", "")
        if node.get("type") == "tts" and len(text) == 1 and node.text:
            codes[node.text] = ord(text)
    font = TTFont(FONT)
    names = font.getBestCmap()
    strike = font["CBDT"].strikeData[0]
    glyphs = np.zeros((len(CONCEPTS), GLYPH_SIZE, GLYPH_SIZE, 4), np.uint8)
    for i, concept in enumerate(CONCEPTS):
        bitmap = Image.open(io.BytesIO(strike[names[codes[concept]]].imageData)).convert("RGBA")
        if bitmap.size != (136, 128):
            raise ValueError(f"{concept}: a bitmap of {bitmap.size}, expected 136 x 128")
        glyphs[i, 4:132] = np.asarray(bitmap)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, glyphs=glyphs)


def load_glyphs(path: Path, device: torch.device) -> Tensor:
    """Premultiplied RGBA in [0, 1], so that interpolation does not bleed hidden colours into edges."""
    rgba = torch.from_numpy(np.load(path)["glyphs"]).to(device).permute(0, 3, 1, 2).float() / 255
    return torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)


def draw_scenes(count: int, generator: torch.Generator) -> Scenes:
    def below(n: int) -> Tensor:
        return torch.randint(0, n, (count,), generator=generator)

    first, second = below(len(CONCEPTS)), below(len(CONCEPTS) - 1)
    return Scenes(
        first=first,
        second=second + (second >= first).long(),  # never the same emoji twice
        relation=below(len(RELATIONS)),
        pair=torch.rand(count, generator=generator) < _PAIR_SHARE,
        colour=below(len(COLOURS)),
        pattern=below(len(PATTERNS)),
    )


def labels(scenes: Scenes, device: torch.device) -> dict[str, Tensor]:
    """What the scorer should read: an emoji (or 'none', the last class) per position, colour, pattern."""
    nothing = torch.full_like(scenes.first, len(CONCEPTS))
    found = {position: nothing for position in POSITIONS}
    found["centre"] = torch.where(scenes.pair, nothing, scenes.first)
    for i, relation in enumerate(RELATIONS):
        here = scenes.pair & (scenes.relation == i)
        for position, emoji in zip(PLACES[relation], (scenes.first, scenes.second), strict=True):
            found[position] = torch.where(here, emoji, found[position])
    found |= {"colour": scenes.colour, "pattern": scenes.pattern}
    return {name: value.to(device) for name, value in found.items()}


class Renderer:
    """Draws scenes as images [B, 3, 256, 256] in [-1, 1]; placement, size, tilt and phase vary at random."""

    def __init__(self, glyphs: Tensor, seed: int) -> None:
        self.glyphs = glyphs
        self.device = glyphs.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.palette = torch.tensor(list(COLOURS.values()), device=self.device)
        axis = torch.linspace(-1, 1, IMAGE_SIZE, device=self.device)
        self.y, self.x = torch.meshgrid(axis, axis, indexing="ij")

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self.device, generator=self.generator)

    def _background(self, scenes: Scenes) -> Tensor:
        count = len(scenes)
        base = self.palette[scenes.colour.to(self.device)][:, :, None, None]
        angle = (self._uniform(count) * 0.5 + 0.5).view(-1, 1, 1)
        phase = (self._uniform(count) * 2 * torch.pi).view(-1, 1, 1)
        u = self.x * angle.cos() + self.y * angle.sin()
        w = self.y * angle.cos() - self.x * angle.sin()
        # Soft edges (a steep sigmoid) keep the patterns free of aliasing.
        stripes = torch.sigmoid(8 * torch.sin(14 * u + phase))
        dots = torch.sigmoid(8 * (torch.sin(18 * u + phase) * torch.sin(18 * w + phase) - 0.45))
        checks = torch.sigmoid(8 * torch.sin(14 * u + phase) * torch.sin(14 * w + phase))
        kind = scenes.pattern.to(self.device).view(-1, 1, 1)
        mask = torch.where(kind == 1, stripes, torch.where(kind == 2, dots, checks)) * (kind > 0)
        mask = mask[:, None]
        # Patterns darken their colour; on black they lighten it, or they would not be seen.
        dark = base.mean(1, keepdim=True) < 0.3
        return base * (1 - 0.22 * mask) + torch.where(dark, 0.25, 0.0) * mask

    def _paste(self, image: Tensor, emoji: Tensor, centre: Tensor, half_size: Tensor) -> Tensor:
        count = len(image)
        half_size = half_size * (1 + 0.16 * (self._uniform(count) - 0.5))
        centre = centre + 0.12 * (self._uniform(count, 2) - 0.5)
        tilt = 0.35 * (self._uniform(count) - 0.5)
        cos, sin = tilt.cos() / half_size, tilt.sin() / half_size
        shift_x = -(centre[:, 0] * cos + centre[:, 1] * sin)
        shift_y = centre[:, 0] * sin - centre[:, 1] * cos
        affine = torch.stack([torch.stack([cos, sin, shift_x], 1), torch.stack([-sin, cos, shift_y], 1)], 1)
        grid = F.affine_grid(affine, [count, 4, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
        layer = F.grid_sample(self.glyphs[emoji], grid, mode="bicubic", align_corners=False).clamp(0, 1)
        return image * (1 - layer[:, 3:]) + layer[:, :3]

    @torch.no_grad()
    def __call__(self, scenes: Scenes) -> Tensor:
        image = self._background(scenes)
        pair = scenes.pair.to(self.device)
        offsets = torch.tensor([[-0.5, 0.0], [0.5, 0.0], [0.0, -0.5], [0.0, 0.5]], device=self.device)
        offset = offsets[scenes.relation.to(self.device)] * pair[:, None]
        half_size = torch.where(pair, 0.44, 0.72)
        chosen = scenes.pair.nonzero()[:, 0].to(self.device)  # found on the CPU: no wait for the device
        if len(chosen):
            second = scenes.second.to(self.device)[chosen]
            image[chosen] = self._paste(image[chosen], second, -offset[chosen], half_size[chosen])
        image = self._paste(image, scenes.first.to(self.device), offset, half_size)
        return image.clamp(0, 1) * 2 - 1
