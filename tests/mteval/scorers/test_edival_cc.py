"""The scorer edival-cc: its arithmetic against formulas written again here, its quirks, and what becomes of nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mteval.errors import UsageError
from mteval.perception.base import Box, Features, Floats
from mteval.scorers.base import Score, TurnView
from mteval.scorers.edival.likeness import (
    background_likeness,
    cosine,
    grid_of,
    masked_likeness,
    object_likeness,
    outside,
    pixel_likeness,
    pooled,
    with_registers,
)
from mteval.scorers.edival_cc import EdivalContentConsistency
from mteval.scoring import ask
from mteval.sessions import Session, Turn
from tests.mteval.scorers.edival_script import PixelDetector, Places, angle, reference_background, scene, session

LEFT, RIGHT, BELOW = (4, 28, 16, 40), (48, 28, 60, 40), (28, 48, 40, 60)


def features(seed: int, rows: int = 14, columns: int = 14, registers: int = 4, channels: int = 8) -> Features:
    rng = np.random.default_rng(seed)
    shapes = (channels,), (registers, channels), (rows, columns, channels)
    return Features(*(rng.normal(0.4, 1, shape).astype(np.float32) for shape in shapes))


def rows_of(of: Features) -> npt.NDArray[np.float64]:
    """last_hidden_state: [1 + registers + patches, channels]."""
    return np.array([of.summary, *of.registers, *of.patches.reshape(-1, of.patches.shape[2])], dtype=np.float64)


def test_201_tokens_of_224_pixels_are_laid_on_ten_by_twenty() -> None:
    """Quirk: 200 tokens behind the class token, of which four are registers."""
    assert with_registers(features(0)).shape == (200, 8)
    assert grid_of(200, 1.0) == (10, 20)
    assert grid_of(196, 1.0) == (14, 14)


@given(st.integers(1, 400), st.floats(0.3, 3))
def test_the_grid_is_the_nearest_that_holds_every_token(tokens: int, aspect: float) -> None:
    rows, columns = grid_of(tokens, aspect)
    assert rows * columns == tokens
    for other in range(1, tokens + 1):
        if tokens % other == 0:
            assert abs(rows / columns - aspect) <= abs(other / (tokens // other) - aspect)


@given(
    arrays(np.bool_, st.tuples(st.integers(3, 40), st.integers(3, 40))),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_a_mask_is_pooled_as_by_area_interpolation(mask: npt.NDArray[np.bool_], grid: tuple[int, int]) -> None:
    wanted = torch.nn.functional.interpolate(torch.from_numpy(mask.astype(np.float32))[None, None], grid, mode="area")
    np.testing.assert_allclose(pooled(mask, *grid), wanted[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_objects_are_alike_by_class_token_and_mean_token(seed: int) -> None:
    a, b = features(seed), features(seed + 100)
    tokens = rows_of(a), rows_of(b)
    published = 0.5 * angle(tokens[0][0], tokens[1][0]) + 0.5 * angle(tokens[0][1:].mean(0), tokens[1][1:].mean(0))
    assert object_likeness(a, b, registers=True) == pytest.approx(published)
    mended = 0.5 * angle(tokens[0][0], tokens[1][0]) + 0.5 * angle(tokens[0][5:].mean(0), tokens[1][5:].mean(0))
    assert object_likeness(a, b, registers=False) == pytest.approx(mended)
    assert published != pytest.approx(mended, abs=1e-6)
    assert object_likeness(a, a, registers=True) == object_likeness(a, a, registers=False) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_backgrounds_are_alike_by_their_weighted_mean_direction(seed: int) -> None:
    a, b = features(seed), features(seed + 100)
    mask = np.zeros((64, 64), bool)
    mask[: 20 + 5 * seed, 7:] = True
    wanted = reference_background(rows_of(a)[1:], rows_of(b)[1:], mask, 10, 20)
    found = background_likeness(with_registers(a), with_registers(b), pooled(mask, 10, 20).ravel())
    assert found == pytest.approx(wanted)


def test_a_background_of_nothing_has_no_likeness() -> None:
    a = with_registers(features(0))
    assert background_likeness(a, a, np.full(200, 0.49, np.float32)) is None
    assert background_likeness(a, a, np.full(200, 0.5, np.float32)) == pytest.approx(1)


@given(
    arrays(np.float32, 4, elements=st.floats(-4, 4, width=32)),
    arrays(np.float32, 4, elements=st.floats(-4, 4, width=32)),
)
def test_a_cosine_is_a_consistency(a: Floats, b: Floats) -> None:
    assert 0 <= cosine(a, b) <= 1
    assert cosine(a, b) == cosine(b, a)
    assert cosine(a, np.zeros(4, np.float32)) == 0


def test_likeness_of_pixels() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.random((6, 8, 3)).astype(np.float32) for _ in range(2))
    mask = rng.random((6, 8)) < 0.5
    by_hand = 1 - sum(abs(a[y, x] - b[y, x]).mean() for y, x in np.argwhere(mask)) / mask.sum()
    assert masked_likeness(a, b, mask) == pytest.approx(by_hand)
    assert pixel_likeness(a, b) == pytest.approx(1 - np.abs(a - b).mean())
    assert masked_likeness(a, b, np.zeros((6, 8), bool)) is None


@given(st.lists(st.builds(Box, *[st.floats(0, 1)] * 4), max_size=5), st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_every_pixel_that_a_box_touches_is_masked(boxes: list[Box], size: tuple[int, int]) -> None:
    ordered = [
        Box(min(b.left, b.right), min(b.top, b.bottom), max(b.left, b.right), max(b.top, b.bottom)) for b in boxes
    ]
    mask = outside(ordered, size)
    assert mask.shape == size[::-1]
    for y, x in np.ndindex(mask.shape):
        middle = (x + 0.5) / size[0], (y + 0.5) / size[1]
        if any(b.left < middle[0] < b.right and b.top < middle[1] < b.bottom for b in ordered):
            assert not mask[y, x]


class Encoder:
    """Tokens by pixels: mean colors of a 14 x 14 grid, a summary of the whole, registers that tell images apart."""

    revision = "1"

    def __init__(self) -> None:
        self.shown: list[Image.Image] = []

    def encode(self, images: Sequence[Image.Image]) -> list[Features]:
        self.shown += images
        return [self._encode(image) for image in images]

    def _encode(self, image: Image.Image) -> Features:
        cells = np.asarray(image.resize((14, 14), Image.Resampling.BOX), np.float32) / 255 + 0.05
        registers = np.stack([cells[0, 0], cells[-1, -1], cells.max(axis=(0, 1)), cells.min(axis=(0, 1))])
        return Features(cells.mean(axis=(0, 1)), registers, cells.astype(np.float32))


def view(
    before: Image.Image,
    after: Image.Image,
    unchanged: Sequence[str],
    every: Sequence[str],
    background_changes: bool = False,
) -> TurnView:
    first = (
        ("background_change", "Change the background to [park]") if background_changes else ("subject_add", "Add [x]")
    )
    of = session(first, unchanged=[unchanged], every=[every])
    return TurnView(of, 1, 1, "free-running", before, before, after)


def scored(mode: str, turn: TurnView, detector: Any = None, encoder: Any = None) -> Score:
    scorer = EdivalContentConsistency(detector or PixelDetector(), encoder or Encoder(), mode)
    (score,) = ask(scorer, [turn])
    return score


BEFORE = scene(("red", LEFT), ("green", RIGHT))
CHANGED = scene(("red", LEFT), ("blue", BELOW), ground="darkgrey")
MODES = pytest.mark.parametrize("mode", ["fixed", "published"])


@MODES
def test_the_first_image_is_wholly_consistent(mode: str) -> None:
    score = scored(mode, view(BEFORE, BEFORE, ["red box"], ["red box", "green box"]))
    assert score.value == 1
    assert score.parts == {"object": 1, "object_l1": 1, "background": 1, "background_l1": 1}


@MODES
def test_parts_are_those_of_the_formulas(mode: str) -> None:
    """Recomputed from the words: crops at the boxes of I_0, one mask for both images of the boxes found in either."""
    turn = view(BEFORE, CHANGED, ["red box", "green box"], ["red box", "green box", "blue box"])
    side = 512 if mode == "published" else 64
    named = {"red box": LEFT, "green box": RIGHT, "blue box": BELOW}
    exact = Places(**{name: Box(*(x / 64 for x in place)) for name, place in named.items()})
    # By its pixels, the blue box is found in the image after alone; resized, their edges are not exact.
    score = scored(mode, turn, exact if mode == "published" else PixelDetector())
    a, b = (image.resize((side, side), Image.Resampling.LANCZOS) for image in (BEFORE, CHANGED))
    scale = side // 64
    places = [tuple(scale * x for x in place) for place in (LEFT, RIGHT)]
    encoder = Encoder()
    parts: dict[str, list[float]] = {"object": [], "object_l1": []}
    for left, top, right, bottom in places:
        crops = [image.crop((left, top, right, bottom)) for image in (a, b)]
        tokens = [rows_of(encoder._encode(crop)) for crop in crops]
        start = 1 if mode == "published" else 5
        means = [one[start:].mean(axis=0) for one in tokens]
        parts["object"].append(0.5 * angle(tokens[0][0], tokens[1][0]) + 0.5 * angle(*means))
        pixels = [np.asarray(crop, np.float64) / 255 for crop in crops]
        parts["object_l1"].append(1 - np.abs(pixels[0] - pixels[1]).mean())
    for name, values in parts.items():
        assert score.parts[name] == pytest.approx(np.mean(values), abs=1e-6)
    mask = np.ones((side, side), bool)
    for left, top, right, bottom in [*places, tuple(scale * x for x in BELOW)]:
        mask[top:bottom, left:right] = False
    tokens = [rows_of(encoder._encode(image)) for image in (a, b)]
    if mode == "published":
        wanted = reference_background(tokens[0][1:], tokens[1][1:], mask, 10, 20)
    else:
        wanted = reference_background(tokens[0][5:], tokens[1][5:], mask, 14, 14)
    assert score.parts["background"] == pytest.approx(wanted, abs=1e-6)
    difference = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean(axis=2) / 255
    assert score.parts["background_l1"] == pytest.approx(1 - difference[mask].mean(), abs=1e-6)
    assert score.value == pytest.approx((score.parts["object"] + score.parts["background"]) / 2)
    assert score.parts["object"] < 0.95


@MODES
def test_objects_are_looked_for_together_and_only_in_the_first_image(mode: str) -> None:
    detector = Places(dog=Box(0.1, 0.1, 0.3, 0.3))
    scored(mode, view(BEFORE, CHANGED, ["dog", "cat"], ["dog", "cat", "text"]), detector)
    # "text" is what the benchmark calls letters that a turn added.
    assert detector.asked == [(("dog", "cat"), 0.35), (("dog", "cat", "text"), 0.35), (("dog", "cat", "text"), 0.35)]


def test_published_measures_nothing_after_a_change_of_background_and_fixed_the_objects() -> None:
    turn = view(BEFORE, CHANGED, ["red box"], ["red box"], background_changes=True)
    published, fixed = scored("published", turn), scored("fixed", turn)
    assert (published.state, published.parts) == ("not_applicable", {})
    assert fixed.state == "ok"
    assert set(fixed.parts) == {"object", "object_l1"}
    assert fixed.value == fixed.parts["object"]


def test_an_object_that_is_not_detected_counts_zero_as_published_and_not_at_all_when_fixed() -> None:
    turn = view(BEFORE, BEFORE, ["dog"], ["red box"])
    published, fixed = scored("published", turn), scored("fixed", turn)
    assert published.parts == {"object": 0, "object_l1": 0, "background": 1, "background_l1": 1}
    assert published.value == 0.5
    assert fixed.parts == {"background": 1, "background_l1": 1}
    assert fixed.value == 1


@MODES
def test_without_objects_to_stay_the_background_is_all(mode: str) -> None:
    score = scored(mode, view(BEFORE, BEFORE, [], ["red box"]))
    assert score.parts == {"background": 1, "background_l1": 1}
    assert score.value == 1


def test_a_background_of_which_nothing_is_left_counts_zero_as_published_and_not_at_all_when_fixed() -> None:
    detector = Places(wall=Box(0, 0, 1, 1), dog=Box(0.1, 0.1, 0.3, 0.3))
    turn = view(BEFORE, BEFORE, ["dog"], ["dog", "wall"])
    published, fixed = scored("published", turn, detector), scored("fixed", turn, detector)
    assert published.parts == {"object": 1, "object_l1": 1, "background": 0}
    assert fixed.parts == {"object": 1, "object_l1": 1}
    nothing = scored("fixed", view(BEFORE, BEFORE, [], ["wall"]), detector)
    assert (nothing.state, nothing.value) == ("not_applicable", None)
    little = Places(wall=Box(0, 0, 1, 0.999))  # a row of pixels is left, but no patch of which half is
    parts = scored("published", view(BEFORE, BEFORE, [], ["wall"]), little).parts
    assert parts == {"background": 0} or parts == {"background": 0, "background_l1": 1}


def test_another_size_is_brought_to_that_of_the_first_image() -> None:
    score = scored("fixed", view(BEFORE, BEFORE.resize((128, 128), Image.Resampling.NEAREST), ["red box"], ["red box"]))
    assert score.parts["background"] > 0.999
    assert score.parts["object_l1"] > 0.95


@MODES
def test_a_failure_is_a_state(mode: str) -> None:
    class Broken(Encoder):
        def encode(self, images: Sequence[Image.Image]) -> list[Features]:
            raise RuntimeError("out of memory")

    turn = view(BEFORE, BEFORE, ["red box"], ["red box"])
    score = scored(mode, turn, encoder=Broken())
    assert (score.state, score.value, score.parts) == ("infra_error", None, {})
    other = Session("s", "s", (Turn("Paint it", "color_alter"),))
    with pytest.raises(UsageError, match="benchmarks of EdiVal's schema"):
        scored(mode, TurnView(other, 1, 1, "free-running", BEFORE, BEFORE, BEFORE))
    with pytest.raises(UsageError, match="edival-cc has no mode 'both'"):
        EdivalContentConsistency(PixelDetector(), Encoder(), "both")
