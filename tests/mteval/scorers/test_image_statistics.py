"""What an image's statistics and its likeness to the source say of a turn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from mteval import registry
from mteval.errors import UsageError
from mteval.metrics import compute, score_table, turn_table
from mteval.perception.appearance import STATISTICS, luminance_p99
from mteval.perception.similarity import ssim
from mteval.scorers.base import Score, TurnView
from mteval.scorers.image_statistics import ImageStatistics
from mteval.scorers.source_similarity import SourceLPIPS, SourceSSIM
from mteval.scoring import ask
from mteval.sessions import ScoreRecord, Session, Turn, TurnRecord
from tests.tiny_pipelines import picture

SESSION = Session("s", "s", tuple(Turn(f"Turn {turn}", "color_alter") for turn in (1, 2, 3)))


def views(source: Image.Image, *made: Image.Image) -> list[TurnView]:
    shown = [source, *made]
    return [
        TurnView(SESSION, turn, turn, "free-running", source, shown[turn - 1], image)
        for turn, image in enumerate(made, 1)
    ]


def brighter(image: Image.Image, amount: int) -> Image.Image:
    return Image.fromarray((np.asarray(image, int) + amount).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", STATISTICS)
def test_the_value_is_of_the_image_and_the_part_of_its_source(name: str) -> None:
    source, made = brighter(picture(1), 90), brighter(picture(2), 120)
    scorer = registry.create("scorer", "image-statistics", {"statistic": name})
    (score,) = scorer.score(views(source, made))
    assert (score.value, score.parts) == (STATISTICS[name].of(made), {"source": STATISTICS[name].of(source)})
    assert scorer.info.measures == "visual_quality" and scorer.info.id == f"image-statistics/{name}"
    assert ask(scorer, views(source, made)) == [score]


def test_the_source_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Image.Image] = []

    def counted(image: Image.Image) -> float:
        seen.append(image)
        return luminance_p99(image)

    scorer = ImageStatistics("luminance_p99")
    object.__setattr__(scorer, "_statistic", STATISTICS["luminance_p99"].__class__(counted, "p99"))
    source = picture(1)
    scorer.score(views(source, picture(2), picture(3), picture(4)))
    assert len(seen) == 4 and [image is source for image in seen] == [True, False, False, False]


@pytest.mark.parametrize(
    ("source", "made", "state", "parts"),
    [
        ("black", "red", "ok", {}),
        ("red", "black", "not_applicable", {"source": 1.0}),
        ("black", "black", "not_applicable", {}),
    ],
)
def test_what_has_no_pixels_to_look_at_is_not_applicable(
    source: str, made: str, state: str, parts: dict[str, float]
) -> None:
    images = [Image.new("RGB", (8, 8), color) for color in (source, made)]
    (score,) = ImageStatistics("saturation").score(views(*images))
    assert (score.state, score.parts) == (state, parts) and score.reason


def test_an_unknown_statistic_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown statistic 'sharpnes': did you mean sharpness"):
        ImageStatistics("sharpnes")


def test_drift_is_the_difference_of_the_means() -> None:
    """From scores to the metric: | mean over sessions of I_t - mean of I_0 |."""
    scorer = ImageStatistics("luminance_p99")
    turns, scores, before, after = [], [], [], []
    for k in range(4):
        source, made = brighter(picture(k), -40), brighter(picture(k), 15 * k)
        (score,) = scorer.score(views(source, made))
        before.append(luminance_p99(source))
        after.append(luminance_p99(made))
        turns.append(TurnRecord(f"s{k}", f"s{k}", "free-running", 1, 1, "t", "x", "ok", 0, "a", "b", None, 1))
        scores.append(
            ScoreRecord(
                *(f"s{k}", "free-running", 1, 1, scorer.info.id, 1, score.state, score.value, None, score.parts),
                *("", {}, 1),
            )
        )
    table = compute(turn_table(turns), score_table(scores), {scorer.info.id: "visual_quality"})
    (delta,) = table[(table["metric"] == "visual_quality_delta") & (table["turn"] == 1)]["value"]
    assert math.isclose(delta, abs(np.mean(after) - np.mean(before)), rel_tol=1e-9) and delta > 0.05


def test_ssim_falls_as_the_picture_wanders_off() -> None:
    source = picture(1)
    noise = np.random.default_rng(0).integers(-1, 2, (64, 64, 3))
    made = [
        Image.fromarray((np.asarray(source, int) + amount * noise).clip(0, 255).astype(np.uint8))
        for amount in (0, 10, 60)
    ]
    found: Sequence[Score] = SourceSSIM().score(views(source, *made))
    values = [score.value for score in found]
    assert values == [pytest.approx(ssim(source, image)) for image in made]
    assert values[0] == pytest.approx(1) and values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert {score.parts["source"] for score in found} == {1.0}


def test_lpips_is_a_distance_from_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    class Difference:
        def __init__(self, device: str) -> None:
            self.device = device

        def distance(self, a: Image.Image, b: Image.Image) -> float:
            return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())

    monkeypatch.setattr("mteval.scorers.source_similarity.Lpips", Difference)
    source = picture(1)
    same, other = SourceLPIPS("cpu").score(views(source, source, brighter(source, 30)))
    assert same.value == 0 and other.value and other.value > 10 and other.parts == {"source": 0.0}


def test_another_size_is_a_state_not_a_number() -> None:
    (score,) = SourceSSIM().score(views(picture(1, (64, 64)), picture(1, (64, 32))))
    assert (score.state, score.value) == ("infra_error", None) and "(64, 32)" in score.reason


def test_an_image_too_small_for_ssim_is_a_state() -> None:
    (score,) = ask(SourceSSIM(), views(picture(1, (8, 8)), picture(2, (8, 8))))
    assert (score.state, score.value) == ("infra_error", None)
