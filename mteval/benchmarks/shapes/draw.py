"""Anti-aliased shapes, fill textures, letters and backgrounds by supersampling. All ours: no font, no image file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Plane = NDArray[np.floating[Any]]  # of positions

# Samples per pixel side; edges get SAMPLES**2 levels of coverage.
SAMPLES = 8

# Letters made of straight strokes, on a unit box with y pointing down.
_STROKES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "A": ((0, 1, 0.5, 0), (0.5, 0, 1, 1), (0.2, 0.64, 0.8, 0.64)),
    "E": ((0, 0, 0, 1), (0, 0, 1, 0), (0, 0.5, 0.8, 0.5), (0, 1, 1, 1)),
    "H": ((0, 0, 0, 1), (1, 0, 1, 1), (0, 0.5, 1, 0.5)),
    "K": ((0, 0, 0, 1), (0, 0.55, 1, 0), (0.3, 0.4, 1, 1)),
    "L": ((0, 0, 0, 1), (0, 1, 1, 1)),
    "N": ((0, 1, 0, 0), (0, 0, 1, 1), (1, 1, 1, 0)),
    "T": ((0, 0, 1, 0), (0.5, 0, 0.5, 1)),
    "V": ((0, 0, 0.5, 1), (0.5, 1, 1, 0)),
    "X": ((0, 0, 1, 1), (1, 0, 0, 1)),
    "Z": ((0, 0, 1, 0), (1, 0, 0, 1), (0, 1, 1, 1)),
}
LETTER_HEIGHT = 12.0
LETTER_WIDTH = 8.4
_STROKE = 2.6
_LABEL = 14.5  # side of the label, with round corners


def _samples(size: int) -> tuple[Array, Array]:
    """Sample positions in pixels, each [size * SAMPLES, size * SAMPLES]; (0, 0) is the top left corner."""
    line: Array = ((np.arange(size * SAMPLES) + 0.5) / SAMPLES).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _coverage(inside: NDArray[np.bool_]) -> Array:
    """[size * SAMPLES]**2 of booleans -> [size, size] in 0..1."""
    size = inside.shape[0] // SAMPLES
    covered: Array = inside.reshape(size, SAMPLES, size, SAMPLES).mean((1, 3), dtype=np.float32)
    return covered


def _polygon(x: Plane, y: Plane, corners: list[tuple[float, float]]) -> NDArray[np.bool_]:
    """Even-odd rule."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def _ring(points: int, inner: float, outer: float, turn: float) -> list[tuple[float, float]]:
    """Corners of a star (or, with inner = outer, a polygon) around 0."""
    corners = []
    for k in range(2 * points):
        radius, angle = (outer, inner)[k % 2], turn + np.pi * k / points
        corners.append((float(radius * np.sin(angle)), float(-radius * np.cos(angle))))
    return corners


def _heart(u: Plane, v: Plane) -> NDArray[np.bool_]:
    a, b = 1.2 * u, -1.2 * v + 0.12
    inside: NDArray[np.bool_] = (a * a + b * b - 1) ** 3 - a * a * b**3 <= 0
    return inside


# Each takes u, v in [-1, 1] over the item's box.
_SHAPES: dict[str, Callable[[Plane, Plane], NDArray[np.bool_]]] = {
    "circle": lambda u, v: u * u + v * v <= 1,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) <= 0.88,
    "triangle": lambda u, v: _polygon(u, v, [(0, -1), (1, 0.86), (-1, 0.86)]),
    "star": lambda u, v: _polygon(u, v + 0.06, _ring(5, 0.48, 1.06, 0.0)),
    "cross": lambda u, v: (np.minimum(np.abs(u), np.abs(v)) <= 0.36) & (np.maximum(np.abs(u), np.abs(v)) <= 1),
    "diamond": lambda u, v: np.abs(u) + np.abs(v) <= 1,
    "heart": _heart,
    "hexagon": lambda u, v: _polygon(u, v, _ring(3, 1.0, 1.0, np.pi / 6)),
}


def shape_coverage(shape: str, size: int) -> Array:
    """How much of each pixel of a [size, size] box the shape covers, 0..1."""
    x, y = _samples(size)
    return _coverage(_SHAPES[shape](2 * x / size - 1, 2 * y / size - 1))


def material_coverage(material: str, size: int) -> Array:
    """How much of each pixel has the material's dark tone, 0..1. No detail is finer than 3 pixels."""
    x, y = _samples(size)
    if material == "plain":
        dark = np.zeros(x.shape, bool)
    elif material == "striped":
        dark = (y / 7.0) % 1.0 >= 0.5
    elif material == "dotted":
        dark = np.hypot((x - size / 2) % 8.0 - 4.0, (y - size / 2) % 8.0 - 4.0) <= 2.5
    else:
        dark = (np.floor((x - size / 2) / 6.5) + np.floor((y - size / 2) / 6.5)) % 2 == 0
    return _coverage(dark)


def label_coverage(size: int) -> Array:
    """The white label in the middle of an item's box."""
    x, y = _samples(size)
    corner = 3.0
    reach = _LABEL / 2 - corner
    dx, dy = np.maximum(np.abs(x - size / 2) - reach, 0), np.maximum(np.abs(y - size / 2) - reach, 0)
    return _coverage(np.hypot(dx, dy) <= corner)


def letter_coverage(letter: str, size: int) -> Array:
    """The ink of a letter, LETTER_HEIGHT pixels high, in the middle of an item's box."""
    x, y = _samples(size)
    ink = np.zeros(x.shape, bool)
    # Stroke ends are round: the box of the centre lines is a stroke's width smaller than the letter.
    width, height = LETTER_WIDTH - _STROKE, LETTER_HEIGHT - _STROKE
    for x0, y0, x1, y1 in _STROKES[letter]:
        ax, ay = size / 2 + (x0 - 0.5) * width, size / 2 + (y0 - 0.5) * height
        bx, by = (x1 - x0) * width, (y1 - y0) * height
        along = np.clip(((x - ax) * bx + (y - ay) * by) / (bx * bx + by * by), 0, 1)
        ink |= np.hypot(x - ax - along * bx, y - ay - along * by) <= _STROKE / 2
    return _coverage(ink)


def _pattern(background: str, x: Plane, y: Plane) -> tuple[Plane, tuple[int, int, int], tuple[int, int, int]]:
    """Share of the second tone, first tone, second tone. Periods divide 32 pixels."""
    tau = np.float32(2 * np.pi)
    if background == "paper":
        lines = (np.minimum(x % 16, y % 16) < 1.6).astype(np.float32)
        return lines, (242, 240, 232), (213, 218, 225)
    if background == "sand":
        return 0.5 + 0.5 * np.sin(tau * (x + 2 * y) / 16), (236, 218, 178), (223, 200, 154)
    if background == "grass":
        tuft = (np.abs((x + 8 * (np.floor(y / 8) % 2)) % 16 - 8) + 0.9 * (y % 8) < 5.5).astype(np.float32)
        return tuft, (192, 222, 168), (164, 202, 138)
    if background == "water":
        crest = np.cos(tau * (y - 2.5 * np.sin(tau * x / 32)) / 16)
        return np.clip(0.5 + 1.5 * crest, 0, 1), (186, 216, 238), (160, 198, 227)
    if background == "bricks":
        joint = np.minimum(y % 8, (x + 8 * (np.floor(y / 8) % 2)) % 16) < 1.6
        return joint.astype(np.float32), (222, 176, 156), (237, 210, 196)
    if background == "wood":
        grain = 0.5 + 0.5 * np.sin(tau * (y + 2 * np.sin(tau * x / 32)) / 8)
        return np.maximum(0.6 * grain, (y % 16 < 1.6)), (220, 188, 148), (188, 151, 111)
    if background == "slate":
        spots = (np.hypot(x % 16 - 8, y % 16 - 8) < 3.5).astype(np.float32)
        return spots, (170, 178, 190), (149, 157, 170)
    weave = ((np.floor(x / 4) + np.floor(y / 4)) % 2).astype(np.float32)
    return weave, (232, 226, 236), (215, 208, 221)


def background_pixels(background: str, size: int) -> Array:
    """[size, size, 3] in 0..255."""
    x, y = _samples(size)
    fine, first, second = _pattern(background, x, y)
    share = fine.reshape(size, SAMPLES, size, SAMPLES).mean((1, 3), dtype=np.float32)[..., None]
    pixels: Array = (1 - share) * np.array(first, np.float32) + share * np.array(second, np.float32)
    return pixels
