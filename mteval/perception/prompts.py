"""How names become what a detector is asked, and its answer the names again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mteval.perception.base import Box, Detection


def spoken(names: Iterable[str]) -> dict[str, list[str]]:
    """What is asked for, lower-case and without full stops -> the names that it stands for, in their order.

    Names that read alike are asked for once, and what is found is found for each of them.

    Raises:
        ValueError: nothing of a name is left.
    """
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        text = " ".join(name.lower().replace(".", " ").split())
        if not text:
            raise ValueError(f"'{name}' names nothing that could be looked for")
        found.setdefault(text, []).append(name)
    return found


def detections(found: Iterable[tuple[str, Box, float]], asked: dict[str, list[str]]) -> list[Detection]:
    """What was found, under the names as they were asked, the surest first.

    A place outside of the image is left out.

    Args:
        found: what was asked for, where, and how surely. asked: from :func:`spoken`.
    """
    named = [Detection(name, box, score) for text, box, score in found if box.area > 0 for name in asked[text]]
    return sorted(named, key=lambda detection: -detection.score)


def inside(corners: Sequence[float]) -> Box:
    """The part of (left, top, right, bottom) that is in the image; shares of it."""
    left, top, right, bottom = (min(max(float(place), 0.0), 1.0) for place in corners)
    return Box(left, top, right, bottom)
