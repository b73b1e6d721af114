"""The contracts of perception: detectors, encoders of images, readers of text. Images are RGB, 8 bit.

A back end raises for what it cannot do, and the scorer's turn becomes an ``infra_error``: a detector that ran out of
memory has not seen that something is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Box:
    """A place in an image, in shares of its width and height, 0 at the left and at the top."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def size(self) -> tuple[float, float]:
        """(width, height)."""
        return self.right - self.left, self.bottom - self.top

    @property
    def area(self) -> float:
        width, height = self.size
        return max(width, 0.0) * max(height, 0.0)

    def overlap(self, other: Box) -> float:
        """Intersection over union, in [0, 1]."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        both = max(width, 0.0) * max(height, 0.0)
        union = self.area + other.area - both
        return both / union if union > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Detection:
    """Something that was asked for, found: ``name`` as it was asked, ``score`` in [0, 1]."""

    name: str
    box: Box
    score: float


class Detector(Protocol):
    """Open-vocabulary detection.

    Attributes:
        revision: what pins its answers (weights, settings); part of a score's identity.
    """

    revision: str

    def detect(self, image: Image, names: Sequence[str], threshold: float) -> list[Detection]:
        """What is seen of ``names`` with at least ``threshold``, the surest first."""
        ...


@dataclass(frozen=True, slots=True)
class Features:
    """What an encoder makes of an image of a transformer.

    Attributes:
        summary: [channels], its class token.
        registers: [r, channels], tokens that stand for no place; r may be 0.
        patches: [rows, columns, channels].
    """

    summary: Floats
    registers: Floats
    patches: Floats


class Encoder(Protocol):
    """Image features; ``revision`` as for :class:`Detector`."""

    revision: str

    def encode(self, images: Sequence[Image]) -> list[Features]: ...


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text, found in an image; ``score`` in [0, 1]."""

    text: str
    box: Box
    score: float


class Reader(Protocol):
    """Text recognition; ``revision`` as for :class:`Detector`."""

    revision: str

    def read(self, image: Image) -> list[Text]:
        """The lines, from top to bottom, then from left to right."""
        ...
