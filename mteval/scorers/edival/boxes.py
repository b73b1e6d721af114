"""Where things are to each other: the geometry of EdiVal's rules, in shares of the image; y grows downward."""

from __future__ import annotations

from collections.abc import Sequence

from mteval.perception.base import Box, Detection

DUPLICATE = 0.8
"""Intersection over union above which two boxes are the same thing found twice (EdiVal, of its counts)."""


def distinct(found: Sequence[Detection]) -> list[Detection]:
    """Every thing once, the surest box of it."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda detection: -detection.score):
        if all(one.box.overlap(other.box) <= DUPLICATE for other in kept):
            kept.append(one)
    return kept


def smaller(found: Sequence[Detection], share: float) -> list[Detection]:
    """Without boxes that are both wider and taller than ``share``: what a detector says when it means the image."""
    return [one for one in found if not all(side > share for side in one.box.size)]


def shift(box: Box, reference: Box, direction: str) -> float:
    """How far the centre of ``box`` lies from that of ``reference`` in a direction; negative on the other side."""
    (x, y), (from_x, from_y) = box.center, reference.center
    return {"left": from_x - x, "right": x - from_x, "above": from_y - y, "below": y - from_y}[direction]


def inside(box: Box, other: Box) -> bool:
    """Whether ``box`` lies in ``other``, edges included."""
    return box.left >= other.left and box.top >= other.top and box.right <= other.right and box.bottom <= other.bottom


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of them."""
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )
