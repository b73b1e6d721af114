"""What every chart is made of. Lengths are in user units; a chart is 360 wide, which is about a phone's screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH = 360
STYLES = 7
"""How many styles (colour, marker, dash) there are before they start over."""

_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 3", "10 4", "5 2 1 2")


class Scale(NamedTuple):
    """A linear map of values [low, high] to lengths [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def length(value: float) -> str:
    """A length with two decimals at most, the same on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def drawing(width: float, height: float, label: str, parts: Sequence[Markup], kind: str = "chart") -> Markup:
    """The whole image; ``label`` is what a screen reader says."""
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, length(width), length(height), label, Markup("").join(parts)
    )


def text(x: float, y: float, words: str, anchor: str = "middle", kind: str = "") -> Markup:
    """A line of text with its baseline at y."""
    return Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>').format(
        length(x), length(y), anchor, kind, words
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(*map(length, (x1, y1, x2, y2)), kind)


def rect(x: float, y: float, width: float, height: float, kind: str, extra: str = "") -> Markup:
    """A rectangle; ``extra`` are more attributes."""
    sizes = map(length, (x, y, width, height))
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"{}/>').format(*sizes, kind, extra)


def points(places: Sequence[tuple[float, float]]) -> str:
    """The ``points`` of a line or polygon."""
    return " ".join(f"{length(x)},{length(y)}" for x, y in places)


def titled(title: str, *parts: Markup) -> Markup:
    """Parts that show ``title`` when pointed at."""
    return Markup("<g><title>{}</title>{}</g>").format(title, Markup("").join(parts))


def style(index: int) -> str:
    """The class that gives a line its colour."""
    return f"s{index % STYLES}"


def dash(index: int) -> str:
    """The dash pattern of a line, so that lines differ by more than their colour."""
    return _DASHES[index % STYLES]


def marker(index: int, x: float, y: float, size: float = 3.6) -> Markup:
    """The marker of a line: circle, square, triangle, diamond, ... filled with the line's colour."""
    kind = index % STYLES
    if kind == 0:
        return Markup('<circle cx="{}" cy="{}" r="{}" class="mark"/>').format(length(x), length(y), length(size))
    corners: tuple[tuple[float, float], ...] = (
        ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
        ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
        ((-1.1, -0.9), (1.1, -0.9), (0, 1.2)),
        ((0, -1.2), (1.2, -0.3), (0.7, 1.1), (-0.7, 1.1), (-1.2, -0.3)),
        ((-1.2, 0), (-0.6, -1.1), (0.6, -1.1), (1.2, 0), (0.6, 1.1), (-0.6, 1.1)),
    )[kind - 1]
    places = [(x + size * dx, y + size * dy) for dx, dy in corners]
    return Markup('<polygon points="{}" class="mark"/>').format(points(places))


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover [low, high], ``about`` of them; the first and last are the ends of an axis."""
    span = max(high - low, 1e-9)
    raw = span / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]
