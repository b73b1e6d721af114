"""Statistics of one image against formulas written out pixel by pixel, and against OpenCV where they follow it."""

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mteval.perception import appearance
from mteval.perception.appearance import STATISTICS


def noise(seed: int, width: int = 12, height: int = 9, low: int = 0) -> Image.Image:
    """Some pixels of it at both ends of the range."""
    values = np.random.default_rng(seed).integers(low - 40, 296, (height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


IMAGES = st.builds(
    noise, st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(3, 12), st.sampled_from([0, 200, 250])
)


def pixels(image: Image.Image) -> list[tuple[float, float, float]]:
    return [tuple(level / 255 for level in one) for row in np.asarray(image).tolist() for one in row]


def linear(level: float) -> float:
    return level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4


def luminances(image: Image.Image) -> list[float]:
    return [0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) for r, g, b in pixels(image)]


@given(image=IMAGES)
def test_saturation_is_that_of_hsv(image: Image.Image) -> None:
    hsv = [colorsys.rgb_to_hsv(*one) for one in pixels(image)]
    seen = [s for _, s, v in hsv if v > 0.1]
    for name, values in (("saturation", seen), ("saturated", [float(s > 0.9) for s in seen])):
        value = STATISTICS[name].of(image)
        assert value is None if not seen else math.isclose(value or 0.0, np.mean(values), abs_tol=1e-9)


def mirrored(values: Any, row: int, column: int) -> float:
    """The value at a place that may be outside: the edge is a mirror and stands once."""
    height, width = values.shape
    row, column = abs(row), abs(column)
    row, column = min(row, 2 * (height - 1) - row), min(column, 2 * (width - 1) - column)
    return float(values[row, column])


def filtered(values: Any, kernel: Any) -> Any:
    reach = len(kernel) // 2
    offsets = range(-reach, reach + 1)
    return np.array(
        [
            [
                sum(kernel[i + reach][j + reach] * mirrored(values, r + i, c + j) for i in offsets for j in offsets)
                for c in range(values.shape[1])
            ]
            for r in range(values.shape[0])
        ]
    )


@given(image=IMAGES)
def test_sharpness_is_the_variance_of_the_laplacian(image: Image.Image) -> None:
    grey = np.reshape([round(255 * (0.299 * r + 0.587 * g + 0.114 * b)) for r, g, b in pixels(image)], image.size[::-1])
    smooth = filtered(grey / 255, np.outer([1, 2, 1], [1, 2, 1]) / 16)
    wanted = np.var(filtered(smooth, [[2, 0, 2], [0, -8, 0], [2, 0, 2]]))
    # A grey value of a half is rounded either way.
    assert math.isclose(appearance.sharpness(image), wanted, rel_tol=1e-2, abs_tol=1e-4)


@given(image=IMAGES)
def test_contrast_is_the_spread_of_lightness(image: Image.Image) -> None:
    lightness = [(116 * y ** (1 / 3) - 16 if y > (6 / 29) ** 3 else y * (29 / 3) ** 3) / 100 for y in luminances(image)]
    wanted = np.std(lightness) / (np.mean(lightness) + 1e-8)
    assert math.isclose(appearance.contrast(image), wanted, rel_tol=0.02, abs_tol=4e-3)


@given(image=IMAGES)
def test_what_is_clipped_is_counted_in_linear_light(image: Image.Image) -> None:
    whole = luminances(image)
    assert math.isclose(appearance.clipped(image), np.mean([y >= 0.98 for y in whole]), abs_tol=1e-9)
    two = [sum(linear(level) >= 0.98 for level in one) >= 2 for one in pixels(image)]
    assert math.isclose(appearance.clipped_channels(image), np.mean(two), abs_tol=1e-9)
    tail = [y for y in whole if y >= 0.98]
    value = appearance.tail_deviation(image)
    assert value is None if not tail else math.isclose(value or 0.0, np.std(tail), abs_tol=1e-9)


@given(image=IMAGES, data=st.data())
def test_percentiles_are_interpolated(image: Image.Image, data: st.DataObject) -> None:
    whole = sorted(luminances(image))
    for name, share in (("luminance_p99", 0.99), ("luminance_p999", 0.999)):
        place = share * (len(whole) - 1)
        below = int(place)
        above = min(below + 1, len(whole) - 1)
        wanted = whole[below] + (place - below) * (whole[above] - whole[below])
        assert math.isclose(STATISTICS[name].of(image) or 0.0, wanted, abs_tol=1e-9)


def white(*patches: tuple[int, int, int, int], size: tuple[int, int] = (60, 40)) -> Image.Image:
    image = Image.new("RGB", size, (90, 90, 90))
    for patch in patches:
        image.paste("white", patch)
    return image


@pytest.mark.parametrize(
    ("patches", "flat"),
    [
        ([(20, 10, 40, 30)], (20 - 8) * (20 - 8)),  # the Gaussian sees the grey from 4 pixels on
        ([(20, 10, 35, 25)], 0),  # 7 x 7 that are flat are under 50
        ([(20, 10, 36, 26)], 8 * 8),
        ([(0, 0, 12, 12)], 8 * 8),  # a corner of the image is no edge of the patch
        ([(0, 0, 60, 40)], 60 * 40),
        ([(4, 4, 17, 17), (17, 17, 30, 30)], 0),  # 25 and 25: their flat parts do not touch
        ([], 0),
    ],
)
def test_blown_areas_are_flat_patches_of_fifty_pixels(patches: list[tuple[int, int, int, int]], flat: int) -> None:
    image = white(*patches)
    assert math.isclose(appearance.blown_flat(image), flat / 2400, abs_tol=1e-12)
    clipped = sum(1 for one in pixels(image) if min(one) == 1) / 2400
    assert math.isclose(appearance.over_exposure(image), flat / 2400 + clipped / 2, abs_tol=1e-12)


def test_patches_hang_together_across_a_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    linear_light = np.full((40, 60), 0.5)
    linear_light[5:14, 5:14] = linear_light[14:23, 14:23] = 1.0
    monkeypatch.setattr(appearance, "luminance", lambda image: linear_light)
    monkeypatch.setattr(appearance, "_FLAT", 1.0)  # everything is flat, so what counts is what hangs together
    monkeypatch.setattr(appearance, "_PATCH", 82)
    assert math.isclose(appearance.blown_flat(Image.new("RGB", (60, 40))), 2 * 81 / 2400)


def test_texture_is_not_blown_flat() -> None:
    rough = np.full((40, 60, 3), 255, np.uint8)
    rough[::2, ::2] = 247
    image = Image.fromarray(rough)
    assert appearance.clipped(image) == 0.75 and appearance.blown_flat(image) == 0


@given(image=IMAGES)
def test_every_value_is_in_its_range(image: Image.Image) -> None:
    for statistic in STATISTICS.values():
        value = statistic.of(image)
        assert value is None or (math.isfinite(value) and statistic.low <= value <= statistic.high)


@pytest.mark.parametrize("color", ["black", "white", (20, 20, 20)])
def test_images_of_one_colour_have_no_spread(color: Any) -> None:
    image = Image.new("RGB", (20, 20), color)
    assert appearance.sharpness(image) == 0 and appearance.contrast(image) == pytest.approx(0, abs=1e-9)
    assert (appearance.saturation(image) is None) == (color != "white")
    assert appearance.tail_deviation(image) == (0 if color == "white" else None)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_opencv_computes(seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    image = noise(seed, 65, 48, low=[0, 100, 200, 250][seed])
    rgb = np.asarray(image)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) / 255.0
    laplacian = cv2.Laplacian(cv2.GaussianBlur(grey, (3, 3), 0), cv2.CV_64F, ksize=3)
    assert math.isclose(appearance.sharpness(image), laplacian.var(), rel_tol=1e-3)
    lightness = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., 0] / 255.0
    assert math.isclose(appearance.contrast(image), lightness.std() / (lightness.mean() + 1e-8), rel_tol=5e-3)
    hsv = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    seen = hsv[..., 1][hsv[..., 2] > 0.1]
    assert math.isclose(appearance.saturation(image) or 0.0, seen.mean(), rel_tol=1e-4)
    linear_light = appearance.luminance(image)
    mean, square = (cv2.GaussianBlur(values, (0, 0), 1) for values in (linear_light, linear_light**2))
    flat = (linear_light >= 0.98) & (np.sqrt(np.maximum(square - mean**2, 0)) < 0.01)
    _, _, found, _ = cv2.connectedComponentsWithStats(flat.astype(np.uint8), connectivity=8)
    areas = found[1:, cv2.CC_STAT_AREA]
    assert math.isclose(appearance.blown_flat(image), areas[areas >= 50].sum() / flat.size, abs_tol=1e-9)
