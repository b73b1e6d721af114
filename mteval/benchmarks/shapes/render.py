"""Scene -> pixels, exactly and fast: every item is a ready-made patch that is blended onto its background."""

from __future__ import annotations

from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mteval.benchmarks.shapes import draw
from mteval.benchmarks.shapes.world import COLORS, Item, Level, Scene

Array = NDArray[np.float32]
Box = tuple[slice, slice]

_INK, _LABEL = (44.0, 44.0, 48.0), (246.0, 246.0, 244.0)
_DARK = 0.65  # the second tone of a material, as a share of the item's colour


class Looks(NamedTuple):
    """What an item looks like, wherever it is."""

    shape: str
    color: str
    material: str
    text: str


class Patch(NamedTuple):
    """``paint`` [s, s, 3] in 0..255, multiplied by the coverage; ``show`` [s, s, 1] is the share of the ground left."""

    paint: Array
    show: Array


class Renderer:
    """Draws the scenes of one level. Its patches are made on first use and kept."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self._patches: dict[Looks, Patch] = {}

    def patch(self, looks: Looks) -> Patch:
        if looks not in self._patches:
            size = self.level.item
            body = _shape(looks.shape, size)
            dark = _material(looks.material, size)
            fill = (1 - dark + _DARK * dark) * np.array(COLORS[looks.color], np.float32)
            paint, cover = body * fill, body
            if looks.text:
                label, ink = _label(size), _letter(looks.text, size)
                paint = paint * (1 - label) + label * np.array(_LABEL, np.float32)
                paint = paint * (1 - ink) + ink * np.array(_INK, np.float32)
                cover = np.maximum(cover, label)
            self._patches[looks] = Patch(paint, 1 - cover)
        return self._patches[looks]

    @cached_property
    def backgrounds(self) -> dict[str, Array]:
        """[size, size, 3] in 0..255 by name."""
        return {name: draw.background_pixels(name, self.level.size) for name in self.level.backgrounds}

    def box(self, item: Item) -> Box:
        """(rows, columns) of the item's box."""
        left, top = self.level.corner(item)
        return slice(top, top + self.level.item), slice(left, left + self.level.item)

    def canvas(self, scene: Scene) -> Array:
        """[size, size, 3], RGB in 0..255, not yet rounded."""
        canvas = self.backgrounds[scene.background].copy()
        for item in scene.items:
            patch, box = self.patch(looks(item)), self.box(item)
            canvas[box] = canvas[box] * patch.show + patch.paint
        return canvas

    def pixels(self, scene: Scene) -> NDArray[np.uint8]:
        """[size, size, 3], RGB."""
        return (self.canvas(scene) + np.float32(0.5)).astype(np.uint8)

    def image(self, scene: Scene) -> Image.Image:
        return Image.fromarray(self.pixels(scene))

    def footprint(self, item: Item) -> NDArray[np.bool_]:
        """[item, item]: the pixels of its box that the item touches at all."""
        return self.patch(looks(item)).show[..., 0] < 1


def looks(item: Item) -> Looks:
    return Looks(item.shape, item.color, item.material, item.text)


@cache
def _shape(shape: str, size: int) -> Array:
    return draw.shape_coverage(shape, size)[..., None]


@cache
def _material(material: str, size: int) -> Array:
    return draw.material_coverage(material, size)[..., None]


@cache
def _label(size: int) -> Array:
    return draw.label_coverage(size)[..., None]


@cache
def _letter(letter: str, size: int) -> Array:
    return draw.letter_coverage(letter, size)[..., None]


@cache
def renderer(level: Level) -> Renderer:
    """The one renderer of a level, so that benchmark, scorers and training share its patches."""
    return Renderer(level)
