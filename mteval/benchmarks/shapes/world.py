"""The world of ShapesEdit: items on a textured background, and the named levels of difficulty.

A scene has ``grid x grid`` places. An item sits at a place with a pixel offset (its jitter) and has a shape, a colour,
a material (its fill texture) and, on a label, an optional letter.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

RGB = tuple[int, int, int]

COLORS: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (246, 134, 28),
    "yellow": (250, 214, 42),
    "green": (38, 152, 66),
    "cyan": (28, 184, 200),
    "blue": (36, 84, 204),
    "purple": (132, 58, 176),
    "pink": (242, 128, 182),
    "brown": (120, 72, 34),
    "black": (34, 34, 38),
    "white": (250, 250, 250),
    "olive": (128, 132, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "heart", "hexagon")
MATERIALS = ("plain", "striped", "dotted", "checked")
LETTERS = ("A", "E", "H", "L", "T", "X", "K", "N", "V", "Z")
BACKGROUNDS = ("paper", "sand", "grass", "water", "bricks", "wood", "slate", "linen")
ATTRIBUTES = ("shape", "color", "material", "text")


class Item(NamedTuple):
    """One object. ``id`` follows it through a session; ``text`` is "" without a label; dx, dy are in pixels."""

    id: int
    shape: str
    color: str
    material: str
    text: str
    place: int
    dx: int
    dy: int

    @property
    def noun(self) -> str:
        """What an instruction calls it: colour and shape, unique in a scene but for the copies of a count change."""
        return f"{self.color} {self.shape}"


class Scene(NamedTuple):
    """A background and its items in the order of their places, which is the order they are drawn in.

    ``level`` is the name of the level it belongs to, so that a scene can be drawn and judged by itself.
    """

    level: str
    background: str
    items: tuple[Item, ...]

    def item(self, id: int) -> Item | None:
        return next((item for item in self.items if item.id == id), None)

    def free_places(self, count: int) -> list[int]:
        taken = {item.place for item in self.items}
        return [place for place in range(count) if place not in taken]

    def bucket(self) -> int:
        """0..99, a hash of everything that shows: what the splits are cut by."""
        shown = repr((self.level, self.background, [item[1:] for item in self.items]))
        return int.from_bytes(hashlib.blake2b(shown.encode(), digest_size=8).digest(), "big") % 100


def scene(level: str, background: str, items: list[Item]) -> Scene:
    """A scene with its items in drawing order."""
    return Scene(level, background, tuple(sorted(items, key=lambda item: item.place)))


def read_scene(plain: Any) -> Scene:
    """The scene that JSON made ``plain`` of: lists in the order of the fields.

    Raises:
        TypeError, ValueError: it is none.
    """
    level, background, items = plain
    return Scene(level, background, tuple(Item(*item) for item in items))


@dataclass(frozen=True, slots=True)
class Level:
    """The knobs of one level of difficulty. Lengths are in pixels.

    Attributes:
        size: side of the square image. grid: places a side; a place is ``size // grid`` wide.
        item: side of an item's box. jitter: largest offset of an item from the middle of its place; with
            ``item / 2 + jitter`` above half a place, items overlap their neighbours and the latent grid.
        items: fewest and most items of a start scene. crowd: most items that edits may lead to.
        labelled: share of the start items that carry a letter.
    """

    name: str
    size: int
    grid: int
    item: int
    jitter: int
    items: tuple[int, int]
    crowd: int
    labelled: float
    shapes: tuple[str, ...]
    colors: tuple[str, ...]
    materials: tuple[str, ...]
    letters: tuple[str, ...]
    backgrounds: tuple[str, ...]

    @property
    def place_size(self) -> int:
        return self.size // self.grid

    @property
    def places(self) -> int:
        return self.grid * self.grid

    def offsets(self, place: int, axis: int) -> tuple[int, int]:
        """Smallest and largest offset that keep an item at ``place`` inside the image (axis 0: x, 1: y)."""
        index = place % self.grid if axis == 0 else place // self.grid
        room = (self.place_size - self.item) // 2
        low = max(-self.jitter, -room - index * self.place_size)
        high = min(self.jitter, room + (self.grid - 1 - index) * self.place_size)
        return low, high

    def corner(self, item: Item) -> tuple[int, int]:
        """(left, top) of the item's box."""
        room = (self.place_size - self.item) // 2
        left = (item.place % self.grid) * self.place_size + room + item.dx
        top = (item.place // self.grid) * self.place_size + room + item.dy
        return left, top


LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level(
            name="easy",
            size=96,
            grid=3,
            item=26,
            jitter=0,
            items=(3, 4),
            crowd=7,
            labelled=0.5,
            shapes=SHAPES[:3],
            colors=("red", "yellow", "green", "blue"),
            materials=("plain", "striped"),
            letters=LETTERS[:3],
            backgrounds=BACKGROUNDS[:3],
        ),
        Level(
            name="standard",
            size=96,
            grid=3,
            item=26,
            jitter=2,
            items=(3, 5),
            crowd=7,
            labelled=0.4,
            shapes=SHAPES[:6],
            colors=tuple(COLORS)[:8],
            materials=MATERIALS,
            letters=LETTERS[:6],
            backgrounds=BACKGROUNDS[:6],
        ),
        Level(
            name="hard",
            size=96,
            grid=3,
            item=28,
            jitter=8,
            items=(4, 6),
            crowd=8,
            labelled=0.5,
            shapes=SHAPES,
            colors=tuple(COLORS),
            materials=MATERIALS,
            letters=LETTERS,
            backgrounds=BACKGROUNDS,
        ),
    )
}
