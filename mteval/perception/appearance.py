"""Colour, sharpness and exposure of one image (RGB, 8 bit): what drifts when an editor edits its own output.

The definitions are those of EdiVal-Bench's quality code, which stand on OpenCV; here they are numpy and scipy, and
where OpenCV's own definition matters it is kept:

- grey is 0.299 R + 0.587 G + 0.114 B, rounded to 8 bits, as ``COLOR_RGB2GRAY``;
- a Gaussian of 3 x 3 is [1, 2, 1] / 4 in both directions, a Laplacian of size 3 is [[2, 0, 2], [0, -8, 0], [2, 0, 2]];
- L of Lab is CIE 1976 under D65 from linear sRGB, scaled to 0..255 and rounded, as ``COLOR_RGB2LAB`` of 8 bits (whose
  tables may be one level off);
- a Gaussian of sigma 1 reaches 4 pixels; edges are mirrored without repeating the outermost pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = npt.NDArray[np.float64]

_DARK = 0.1
_VIVID = 0.9
_CLIPPED = 0.98
_FLAT = 0.01
_PATCH = 50
_LAPLACIAN = np.array([[2, 0, 2], [0, -8, 0], [2, 0, 2]], float)


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number of one image; None where it has no pixels to look at.

    Attributes:
        low, high: its range.
        about: what it is, for a person.
    """

    of: Callable[[Image], float | None]
    about: str
    low: float = 0
    high: float = 1


def saturation(image: Image) -> float | None:
    """Mean S of HSV over the pixels with V > 0.1."""
    seen = _saturations(image)
    return float(seen.mean()) if seen.size else None


def saturated(image: Image) -> float | None:
    """Share of pixels with S > 0.9, of those with V > 0.1."""
    seen = _saturations(image)
    return float((seen > _VIVID).mean()) if seen.size else None


def sharpness(image: Image) -> float:
    """Variance of the Laplacian of the smoothed grey image in [0, 1]."""
    from scipy import ndimage

    grey = np.rint(np.asarray(image, float) @ (0.299, 0.587, 0.114)) / 255
    for axis in (0, 1):
        grey = ndimage.convolve1d(grey, [0.25, 0.5, 0.25], axis, mode="mirror")
    return float(ndimage.convolve(grey, _LAPLACIAN, mode="mirror").var())


def contrast(image: Image) -> float:
    """Standard deviation of L / 255 over its mean (plus 1e-8)."""
    linear = luminance(image)
    lightness = np.where(linear > 216 / 24389, 116 * np.cbrt(linear) - 16, linear * 24389 / 27)
    shares = np.rint(lightness * 2.55) / 255
    return float(shares.std() / (shares.mean() + 1e-8))


def clipped(image: Image) -> float:
    """Share of pixels with Y >= 0.98."""
    return float((luminance(image) >= _CLIPPED).mean())


def clipped_channels(image: Image) -> float:
    """Share of pixels of which at least two linear channels are >= 0.98."""
    return float(((linear_rgb(image) >= _CLIPPED).sum(2) >= 2).mean())


def blown_flat(image: Image) -> float:
    """Share of pixels in patches of at least 50 (8-connected) with Y >= 0.98 and a local deviation of Y < 0.01.

    Local means weighted by a Gaussian of sigma 1.
    """
    from scipy import ndimage

    linear = luminance(image)
    mean, mean_square = (ndimage.gaussian_filter(values, 1, mode="mirror") for values in (linear, linear**2))
    deviation = np.sqrt(np.maximum(mean_square - mean**2, 0))
    labels, _ = ndimage.label((linear >= _CLIPPED) & (deviation < _FLAT), np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    return float(areas[areas >= _PATCH].sum() / labels.size)


def over_exposure(image: Image) -> float:
    """OEI = blown_flat + clipped_channels / 2."""
    return blown_flat(image) + clipped_channels(image) / 2


def luminance_p99(image: Image) -> float:
    """The 99th percentile of Y."""
    return float(np.percentile(luminance(image), 99))


def luminance_p999(image: Image) -> float:
    """The 99.9th percentile of Y."""
    return float(np.percentile(luminance(image), 99.9))


def tail_deviation(image: Image) -> float | None:
    """Standard deviation of Y over the pixels with Y >= 0.98."""
    linear = luminance(image)
    tail = linear[linear >= _CLIPPED]
    return float(tail.std()) if tail.size else None


def linear_rgb(image: Image) -> Floats:
    """[height, width, 3] in [0, 1], without the transfer curve of sRGB (IEC 61966-2-1)."""
    found: Floats = _LINEAR[np.asarray(image)]
    return found


def luminance(image: Image) -> Floats:
    """Y = 0.2126 R + 0.7152 G + 0.0722 B of linear light, [height, width] in [0, 1]."""
    linear: Floats = linear_rgb(image) @ np.array((0.2126, 0.7152, 0.0722))
    return linear


def _saturations(image: Image) -> Floats:
    """S = (max - min) / max where V = max > 0.1, [pixels]."""
    pixels = np.asarray(image, float) / 255
    most, least = pixels.max(2), pixels.min(2)
    bright = most > _DARK
    found: Floats = (most - least)[bright] / most[bright]
    return found


def _linear(level: float) -> float:
    return level / 12.92 if level <= 0.04045 else float(((level + 0.055) / 1.055) ** 2.4)


_LINEAR: Floats = np.array([_linear(level / 255) for level in range(256)])

STATISTICS: Mapping[str, Statistic] = {
    "saturation": Statistic(saturation, "mean saturation of what is not dark"),
    "saturated": Statistic(saturated, "share of fully saturated pixels, of those that are not dark"),
    "sharpness": Statistic(sharpness, "variance of the Laplacian", high=math.inf),
    "contrast": Statistic(contrast, "deviation of the lightness over its mean", high=math.inf),
    "clipped": Statistic(clipped, "share of pixels at full luminance"),
    "clipped_channels": Statistic(clipped_channels, "share of pixels with two channels at their end"),
    "blown_flat": Statistic(blown_flat, "share of pixels in flat white patches"),
    "over_exposure": Statistic(over_exposure, "over-exposure index", high=1.5),
    "luminance_p99": Statistic(luminance_p99, "luminance that 1 % of the pixels reach"),
    "luminance_p999": Statistic(luminance_p999, "luminance that 0.1 % of the pixels reach"),
    "tail_deviation": Statistic(tail_deviation, "deviation of the luminance among the pixels at its end"),
}
