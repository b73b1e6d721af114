"""The arithmetic of EdiVal-CC: how alike two images are on objects and on the background (arXiv 2509.13399).

A likeness of features is a cosine; one below 0, which natural images do not give, is 0, as a consistency lies in
[0, 1]. A likeness of pixels is 1 - mean |a - b|, RGB in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mteval.perception.base import Box, Features, Floats
from mteval.scorers.edival.sight import pixels

Mask = npt.NDArray[np.bool_]

LEAST_WEIGHT = 0.5
"""Patches of which less than this share is background do not count."""


def with_registers(features: Features) -> Floats:
    """[r + rows * columns, channels]: all tokens behind the class token, as published."""
    return np.concatenate([features.registers, _flat(features.patches)])


def object_likeness(a: Features, b: Features, registers: bool) -> float:
    """Half the cosine of the class tokens and half that of the mean tokens, in [0, 1].

    Args:
        registers: the mean is over registers and patches, as published; else over patches alone.
    """
    means = [(with_registers(one) if registers else _flat(one.patches)).mean(axis=0) for one in (a, b)]
    return 0.5 * cosine(a.summary, b.summary) + 0.5 * cosine(*means)


def background_likeness(a: Floats, b: Floats, weights: Floats) -> float | None:
    """The cosine of the mean token directions of two images, in [0, 1]; None where no token counts.

    Args:
        a, b: tokens [n, channels]. weights: [n], the share of background in the token's place; below
            :data:`LEAST_WEIGHT` it does not count.
    """
    weights = np.where(weights < LEAST_WEIGHT, 0.0, weights).astype(np.float64)
    if not weights.any():
        return None
    means = [(_directions(tokens) * weights[:, None]).sum(axis=0) / weights.sum() for tokens in (a, b)]
    return cosine(*means)


def pixel_likeness(a: Floats, b: Floats) -> float:
    """1 - mean |a - b|. ``a``, ``b``: [height, width, 3] in [0, 1]."""
    return 1 - float(np.abs(a - b).mean(dtype=np.float64))


def masked_likeness(a: Floats, b: Floats, mask: Mask) -> float | None:
    """The same over the pixels of a mask [height, width]; None where there are none."""
    return pixel_likeness(a[mask], b[mask]) if mask.any() else None


def outside(boxes: Sequence[Box], size: tuple[int, int]) -> Mask:
    """[height, width]: the pixels that no box touches. ``size``: (width, height)."""
    mask = np.ones(size[::-1], dtype=bool)
    for box in boxes:
        left, top, right, bottom = pixels(box, size)
        mask[top:bottom, left:right] = False
    return mask


def pooled(mask: Mask, rows: int, columns: int) -> Floats:
    """[rows, columns]: the share of the mask in each cell, from the pixel where it begins to the one where it ends.

    Cells of a grid that does not divide the mask share the pixels between them, as in torch's area interpolation.
    """
    height, width = mask.shape
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    (top, bottom), (left, right) = _edges(height, rows), _edges(width, columns)
    inside = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    return np.asarray(inside / np.outer(bottom - top, right - left), dtype=np.float32)


def grid_of(tokens: int, aspect: float) -> tuple[int, int]:
    """(rows, columns) with rows * columns = tokens whose rows / columns is nearest to ``aspect``.

    How the published code lays tokens on a grid: 200 (four registers and 14 x 14 patches) become 10 x 20.

    Args:
        aspect: height / width of the image.
    """
    sizes = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    return min(sizes, key=lambda size: abs(size[0] / size[1] - aspect))


def cosine(a: Floats, b: Floats) -> float:
    """In [0, 1]: negative ones are 0, and so is that of a vector of zeros."""
    first, second = (np.asarray(vector, np.float64) for vector in (a, b))
    length = math.sqrt(float(first @ first) * float(second @ second))
    return min(max(float(first @ second) / length, 0.0), 1.0) if length else 0.0


def _flat(patches: Floats) -> Floats:
    return patches.reshape(-1, patches.shape[-1])


def _directions(tokens: Floats) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(tokens.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(tokens / np.where(lengths > 0, lengths, 1.0))


def _edges(pixels: int, cells: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the cells begin, and where they end (exclusive)."""
    numbers = np.arange(cells)
    return numbers * pixels // cells, -(-(numbers + 1) * pixels // cells)
