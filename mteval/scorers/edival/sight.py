"""What EdiVal's scorers see: images as they are shown to a detector, and what it finds in them."""

from __future__ import annotations

import math
import threading
from typing import Any

from PIL import Image

from mteval.errors import UsageError
from mteval.perception.base import Box, Detection, Detector, Reader
from mteval.registry import nearest

MODES = ("fixed", "published")

_ONE_AT_A_TIME = threading.Lock()  # sessions may be judged side by side, on one device


def check_mode(scorer: str, mode: str) -> None:
    """Raises:
    UsageError: no such mode.
    """
    if mode not in MODES:
        raise UsageError(f"{scorer} has no mode '{mode}': {nearest(mode, list(MODES))}")


class Sight:
    """The images of one batch as a detector sees them; nothing is resized or looked for twice.

    Args:
        side: pixels that every image is resized to (Lanczos); None = as they are.
    """

    # Both are by identity, for views share their images, and hold the image, so that its identity is not given away.

    def __init__(self, detector: Detector, side: int | None) -> None:
        self._detector, self._side = detector, side
        self._shown: dict[int, tuple[Image.Image, Image.Image]] = {}
        self._found: dict[tuple[int, tuple[str, ...], float], tuple[Image.Image, list[Detection]]] = {}

    def shown(self, image: Image.Image) -> Image.Image:
        """The image in the size in which it is judged."""
        if self._side is None or image.size == (self._side, self._side):
            return image
        if id(image) not in self._shown:
            resized = image.resize((self._side, self._side), Image.Resampling.LANCZOS)
            self._shown[id(image)] = image, resized
        return self._shown[id(image)][1]

    def look(self, image: Image.Image, names: tuple[str, ...], threshold: float) -> list[Detection]:
        """What the detector finds in an image of :meth:`shown`."""
        key = id(image), names, threshold
        if key not in self._found:
            with _ONE_AT_A_TIME:
                self._found[key] = image, self._detector.detect(image, names, threshold)
        return self._found[key][1]


def read(reader: Reader, image: Image.Image) -> str:
    """The lines of an image in one."""
    with _ONE_AT_A_TIME:
        lines = reader.read(image)
    return " ".join(line.text for line in lines)


def cut(image: Image.Image, box: Box | None) -> Image.Image:
    """The pixels that a box touches, at least one; the image itself where there is no box."""
    return image if box is None else image.crop(pixels(box, image.size))


def pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the pixels that a box touches, the last two exclusive, at least one pixel."""
    width, height = size
    left, top = min(int(box.left * width), width - 1), min(int(box.top * height), height - 1)
    right, bottom = math.ceil(box.right * width), math.ceil(box.bottom * height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def told(found: list[Detection]) -> list[dict[str, Any]]:
    """Detections as evidence: boxes in shares of the image."""
    return [
        {"name": one.name, "score": round(one.score, 4), "box": [round(x, 4) for x in _corners(one.box)]}
        for one in found
    ]


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom
