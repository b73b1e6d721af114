"""Calibration: every measure against plain counts, planted errors found again, whole runs against a scripted judge."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mteval import labels as labelling
from mteval.calibrating import by_turn, retest
from mteval.calibration import against_itself, against_labels, confusion, corrected
from mteval.errors import UsageError
from mteval.judges.asking import Asker
from mteval.judges.shapes import ShapesPixels
from mteval.scorers.shapes_if import ShapesInstructionFollowing
from mteval.scorers.vlm_if import VlmFollowing
from tests.mteval.serving import shapes_views

Type = Callable[..., tuple[int, str, str]]
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60)


def table_of(judged: Any, label: Any, **columns: Any) -> pd.DataFrame:
    count = len(judged)
    given = {
        "session": [f"s{k}" for k in range(count)],
        "source_id": [f"s{k}" for k in range(count)],
        "model": "m",
        "protocol": "free-running",
        "turn": 1,
        "task_type": "add",
        **columns,
    }
    return pd.DataFrame({**given, "judged": np.asarray(judged, float), "label": np.asarray(label, float)})


def value(rows: pd.DataFrame, measure: str, group: str = "all", of: str = "") -> Any:
    (row,) = rows[(rows["measure"] == measure) & (rows["group"] == group) & (rows["of"] == of)].to_dict("records")
    return row


@given(PAIRS)
def test_measures_are_their_plain_counts(pairs: list[tuple[bool, bool]]) -> None:
    judged, label = zip(*pairs, strict=True)
    rows = against_labels(table_of(judged, label))
    n = len(pairs)
    both = sum(j and t for j, t in pairs)
    neither = sum(not j and not t for j, t in pairs)
    p_j, p_l = sum(judged) / n, sum(label) / n
    chance = p_j * p_l + (1 - p_j) * (1 - p_l)
    wanted = {
        "agreement": (both + neither) / n,
        "bias": p_j - p_l,
        "sensitivity": both / sum(label) if any(label) else math.nan,
        "specificity": neither / (n - sum(label)) if not all(label) else math.nan,
        "kappa": ((both + neither) / n - chance) / (1 - chance) if chance < 1 else math.nan,
    }
    for measure, plain in wanted.items():
        row = value(rows, measure)
        assert row["value"] == pytest.approx(plain, abs=1e-9, nan_ok=True)
        if not math.isnan(plain) and not math.isnan(row["low"]):
            assert row["low"] <= row["value"] + 1e-9 and row["value"] <= row["high"] + 1e-9


def test_groups_and_confusion_are_of_their_own_turns() -> None:
    table = table_of([1, 0, 1, 1], [1, 1, 0, 1], task_type=["add", "add", "text", "text"], turn=[1, 2, 1, 2])
    rows = against_labels(table)
    assert value(rows, "agreement", "task_type", "add")["value"] == 0.5
    assert value(rows, "bias", "turn", "1")["value"] == 0.5
    assert value(rows, "bias", "turn", "2")["value"] == -0.5
    counts = confusion(table).set_index("task_type")
    assert counts.loc["add"].to_dict() == {"both": 1, "judge_only": 0, "label_only": 1, "neither": 0}
    assert counts.loc["text"].to_dict() == {"both": 1, "judge_only": 1, "label_only": 0, "neither": 0}


def test_turns_without_a_label_do_not_count() -> None:
    table = table_of([1, 0, 1], [1, math.nan, math.nan])
    assert value(against_labels(table), "agreement")["n"] == 1


def judge_with(dice: np.random.Generator, label: np.ndarray, hit: float, alarm: float) -> np.ndarray:
    """Verdicts of a judge of that sensitivity and share of false alarms."""
    return np.where(label == 1, dice.random(label.shape) < hit, dice.random(label.shape) < alarm).astype(float)


def test_a_planted_bias_is_within_its_interval_in_at_least_90_of_100_seeds() -> None:
    covered = dict.fromkeys(("sensitivity", "specificity", "bias"), 0)
    for seed in range(100):
        dice = np.random.default_rng(seed)
        # Three turns a source, whose successes go together: the sessions are what is independent.
        skill = np.repeat(dice.beta(3, 2, 80), 3)
        label = (dice.random(240) < skill).astype(float)
        judged = judge_with(dice, label, 0.9, 0.25)
        sources = np.repeat([f"s{k}" for k in range(80)], 3)
        rows = against_labels(table_of(judged, label, session=sources, source_id=sources, turn=[1, 2, 3] * 80))
        truth = {"sensitivity": 0.9, "specificity": 0.75, "bias": 0.6 * (0.9 - 1) + 0.4 * 0.25}
        for name, planted in truth.items():
            row = value(rows, name)
            covered[name] += row["low"] <= planted <= row["high"]
    assert min(covered.values()) >= 90, covered


def test_a_planted_noise_is_within_its_interval_in_at_least_90_of_100_seeds() -> None:
    covered = {"noise": 0, "vote_deviation": 0}
    for seed in range(100):
        dice = np.random.default_rng(1000 + seed)
        truth = (dice.random((150, 1)) < 0.6).astype(float)
        verdicts = np.abs(truth - (dice.random((150, 3)) < 0.08))
        votes = 0.5 + 0.1 * dice.standard_normal((150, 3))
        rows = against_itself(votes, verdicts, [f"s{k}" for k in range(150)])
        for name, planted in (("noise", 0.08), ("vote_deviation", 0.1)):
            row = value(rows, name)
            covered[name] += row["low"] <= planted <= row["high"]
    assert min(covered.values()) >= 90, covered


def test_disagreement_is_the_share_of_pairs_that_differ() -> None:
    verdicts = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]], float)
    rows = against_itself(verdicts, verdicts, list("abcd"))
    pairs = [(a, b) for row in verdicts for k, a in enumerate(row) for b in row[k + 1 :]]
    share = sum(a != b for a, b in pairs) / len(pairs)
    assert value(rows, "disagreement")["value"] == pytest.approx(share)
    assert value(rows, "noise")["value"] == pytest.approx((1 - math.sqrt(1 - 2 * share)) / 2)
    assert value(rows, "vote_deviation")["value"] == pytest.approx(math.sqrt(verdicts.var(1, ddof=1).mean()))


def test_a_biased_judge_is_corrected_and_the_raw_rate_is_not() -> None:
    inside = {"rogan_gladen": 0, "prediction_powered": 0, "raw": 0}
    for seed in range(60):
        dice = np.random.default_rng(seed)
        label = (dice.random(1500) < 0.5).astype(float)
        judged = judge_with(dice, label, 0.95, 0.3)
        found = corrected(table_of(judged, np.where(np.arange(1500) < 300, label, math.nan)))
        for name in inside:
            estimate = getattr(found, name)
            inside[name] += estimate.low <= 0.5 <= estimate.high
    assert inside["rogan_gladen"] >= 54 and inside["prediction_powered"] >= 54 and inside["raw"] == 0, inside


def test_rates_by_turn() -> None:
    table = pd.concat([table_of([1, 0], [1, 0], turn=1), table_of([1, 1], [1, 0], turn=2)])
    rates = by_turn(table).set_index(["turn", "estimate"])["value"]
    assert rates[1, "raw"] == 0.5 and rates[2, "raw"] == 1 and rates[2, "labelled"] == 0.5


def test_labels_of_people_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "session,turn,label,labeller,protocol\n"
        "a,1,1,ann,\na,1,0,bob,\na,1,yes,cat,\na,2,1,ann,\na,2,0,bob,\nb,1,,ann,\nb,2,no,ann,teacher-forced\n"
    )
    assert labelling.read(path) == {
        ("a", "free-running", 1, 1, 1): True,
        ("b", "teacher-forced", 2, 1, 2): False,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("session,turn\na,1\n", "lacks label"),
        ("", "lacks session, turn, label"),
        ("session,turn,label\na,1,maybe\n", "line 2: label 'maybe' must be 1 or 0"),
        ("session,turn,label\na,first,1\n", "line 2: turn"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match=said):
        labelling.read(tmp_path / "labels.csv")
    with pytest.raises(UsageError, match="cannot read"):
        labelling.read(tmp_path / "none.csv")


@pytest.mark.slow
def test_errors_planted_in_a_judge_of_pixels_are_found_in_at_least_90_of_100_seeds() -> None:
    """The whole way: questions, replies, readings, scores, measures; only the judge's errors are made up."""
    exact = ShapesInstructionFollowing()
    views = [view for view in shapes_views(sessions=60, turns=2) if view.protocol == "free-running"]
    label = [float(score.value or 0) for score in exact.score(views)]
    covered = {"specificity": 0, "sensitivity": 0, "noise": 0}
    for seed in range(100):
        for name, bias in (("specificity", 0.2), ("sensitivity", -0.2)):
            scorer = VlmFollowing(Asker(ShapesPixels(bias=bias, seed=seed)))
            judged = [float(score.value or 0) >= 0.7 for score in scorer.score(views)]
            rows = against_labels(_turns(views, judged, label))
            row = value(rows, name)
            covered[name] += row["low"] <= 0.8 <= row["high"]
        votes = retest(VlmFollowing(Asker(ShapesPixels(noise=0.1, seed=seed)), mode="thinking"), views, 3)
        row = value(votes, "noise")
        covered["noise"] += row["low"] <= 0.1 <= row["high"]
    assert min(covered.values()) >= 90, covered


def _turns(views: Any, judged: Any, label: Any) -> pd.DataFrame:
    sessions = [view.session.id for view in views]
    return table_of(judged, label, session=sessions, source_id=sessions, turn=[view.turn for view in views])
