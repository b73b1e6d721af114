"""Quality, survival, collapse and whole rollouts: formulas by enumeration and numpy, bounds, honest intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from mteval import metrics
from mteval.estimators import Distance, Mean, Part, Sources
from mteval.scorers.base import Measure
from tests.mteval.verdicts import (
    BOTH,
    FOLLOWING,
    FORCED,
    FREE,
    MISSING,
    NO_SCORE,
    NO_TURN,
    NOT_APPLICABLE,
    SUCCESS,
    Verdicts,
    row,
    score_record,
    tables,
    turn_record,
)

COLLAPSE: dict[str, Measure] = {"if": "collapse"}
SURVIVAL: dict[str, Measure] = {"if": "survival"}
QUALITY: dict[str, Measure] = {"vq": "visual_quality"}
TRAJECTORY: dict[str, Measure] = {"all": "trajectory"}

Values = npt.NDArray[np.float64]

codes = hnp.arrays(
    np.int_,
    st.tuples(st.integers(1, 4), st.integers(2, 5), st.just(1)),
    elements=st.sampled_from([SUCCESS, SUCCESS, *range(NO_TURN + 1)]),
)


def collapsed(session: Verdicts) -> tuple[float, float] | None:
    """The least and the largest value that a session can have; None where there is nothing to judge."""
    if session[-1] == NO_TURN or all(code in (NOT_APPLICABLE, NO_TURN) for code in session):
        return None
    ways = itertools.product(*((0, 1) if code in MISSING else (int(code == SUCCESS),) for code in session))
    values = [float(any(one and other for one, other in itertools.pairwise(way))) for way in ways]
    return min(values), max(values)


@settings(max_examples=80, deadline=None)
@given(codes)
def test_a_collapse_is_what_every_completion_agrees_on(codes: Verdicts) -> None:
    if (codes == NO_TURN).all():
        return
    table = metrics.compute(*tables({FREE: codes}), COLLAPSE)
    last = int((codes != NO_TURN).any(axis=0).nonzero()[0].max()) + 1
    for turn in range(2, last + 1):
        found = row(table, "collapse", turn)
        ends = [bounds for session in codes[:, :turn, 0] if (bounds := collapsed(session))]
        known = [low for low, high in ends if low == high]
        assert (found.n, found.n_missing) == (len(known), len(ends) - len(known))
        if known:
            assert found.value == pytest.approx(np.mean(known))
            if found.n_missing:
                least, largest = np.mean(ends, axis=0)
                assert (found.best, found.worst) == pytest.approx((least, largest))


def test_one_collapsed_turn_is_no_collapse_and_a_turn_between_two_parts_them() -> None:
    sessions = np.array([[1, 0, 1, 1], [1, NOT_APPLICABLE, 1, 0], [0, 1, NO_SCORE, 0], [1, 1, NO_SCORE, 0]])[:, :, None]
    table = metrics.compute(*tables({FREE: sessions}), COLLAPSE)
    rates = [row(table, "collapse", turn) for turn in (2, 3, 4)]
    assert [(found.value, found.n, found.n_missing) for found in rates] == [(0.25, 4, 0), (1 / 3, 3, 1), (2 / 3, 3, 1)]
    assert not len(table[(table.metric == "collapse") & (table.turn == 1)])


@settings(max_examples=40, deadline=None)
@given(codes)
def test_survival_is_all_turns_so_far_and_never_rises(codes: Verdicts) -> None:
    if (codes == NO_TURN).all():
        return
    names = ["turn", "value", "low", "high", "n", "n_missing", "worst", "best"]
    table = metrics.compute(*tables({FREE: codes, FORCED: codes}), SURVIVAL)
    success = metrics.compute(*tables({FREE: codes}), FOLLOWING)
    mine, theirs = table[table.metric == "survival"], success[success.metric == "turn_success"]
    assert set(mine.protocol) == {FREE}
    pd.testing.assert_frame_equal(mine[names].reset_index(drop=True), theirs[names].reset_index(drop=True))
    whole = metrics.compute(*tables({FREE: np.where(codes > 1, 1, codes)}), SURVIVAL)
    assert (np.diff(whole[whole.metric == "survival"].value) <= 1e-12).all()
    assert set(table[table.metric == "coverage"].protocol) == {FREE}


def quality(now: Values, before: Values, protocol: str = FREE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of a quality scorer from [session, turn] and [session]; NaN = no judgement (before: no such part)."""
    turns, scores = [], []
    for (session, turn), value in np.ndenumerate(now):
        key = (f"s{session:03d}", protocol, turn + 1)
        turns.append(turn_record(*key))
        source = before[session]
        if not math.isnan(value):
            parts = {} if math.isnan(source) else {"source": float(source)}
            scores.append(score_record(*key, scorer="vq", value=float(value), parts=parts))
    return metrics.turn_table(turns), metrics.score_table(scores)


numbers = st.one_of(st.floats(-20, 20), st.just(math.nan))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(float, (6, 2), elements=numbers), hnp.arrays(float, 6, elements=numbers))
def test_quality_is_what_numpy_gives(now: Values, before: Values) -> None:
    table = metrics.compute(*quality(now, before), QUALITY)
    for turn in (1, 2):
        here = now[:, turn - 1]
        found, moved = row(table, "visual_quality", turn), None
        assert (found.n, found.n_missing) == ((~np.isnan(here)).sum(), np.isnan(here).sum())
        if found.n:
            assert found.value == pytest.approx(np.nanmean(here))
        both = ~np.isnan(here) & ~np.isnan(before)
        if not (table.metric == "visual_quality_delta").any():
            assert not (~np.isnan(now).all(axis=1) & ~np.isnan(before)).any()
            continue
        moved = row(table, "visual_quality_delta", turn)
        assert moved.n == both.sum()
        if both.any():
            assert moved.value == pytest.approx(abs(here[both].mean() - before[both].mean()), abs=1e-9)
        if both.sum() > 2 and np.ptp((here - before)[both]) > 1e-6:
            low, high = scipy_stats.ttest_1samp((here - before)[both], 0).confidence_interval()
            expected = (0.0 if low <= 0 <= high else min(abs(low), abs(high)), max(abs(low), abs(high)))
            assert (moved.low, moved.high) == pytest.approx(expected, rel=1e-6, abs=1e-9)
            assert moved.low <= moved.value <= moved.high


def test_what_is_missing_is_bounded_by_the_range_of_the_scorer() -> None:
    now, before = np.array([[6.0], [8.0], [math.nan]]), np.array([5.0, 5.0, 5.0])
    bounded = metrics.compute(*quality(now, before), QUALITY, {"vq": (0, 10)})
    found, moved = row(bounded, "visual_quality", 1), row(bounded, "visual_quality_delta", 1)
    assert (found.value, found.worst, found.best) == pytest.approx((7, 14 / 3, 8))
    assert (moved.value, moved.worst, moved.best) == pytest.approx((2, 14 / 3, 0))
    for ranges in (None, {"vq": (None, None)}):
        endless = metrics.compute(*quality(now, before), QUALITY, ranges)
        for metric in ("visual_quality", "visual_quality_delta"):
            assert math.isnan(row(endless, metric, 1).worst) and math.isnan(row(endless, metric, 1).best)
    half = row(metrics.compute(*quality(now, before), QUALITY, {"vq": (0, None)}), "visual_quality", 1)
    assert half.worst == pytest.approx(14 / 3) and math.isnan(half.best)


def test_quality_is_measured_under_every_protocol() -> None:
    turns, scores = zip(*(quality(np.ones((3, 2)), np.zeros(3), name) for name in (FREE, FORCED)), strict=True)
    table = metrics.compute(pd.concat(turns), pd.concat(scores), QUALITY)
    assert row(table, "visual_quality_delta", 2, FORCED).value == 1
    assert row(table, "coverage", None, FORCED).value == 1


def estimates(differences: Values) -> Iterator[tuple[float, float, float]]:
    """Value, low and high of the distance for each row of [runs, sessions]."""
    sources = Sources(np.arange(differences.shape[1]), differences.shape[1])
    for found in differences:
        part = Part(found, np.ones(len(found)), np.zeros(len(found), np.int64), math.nan, math.nan)
        estimate = Distance((part,)).estimate(sources)
        assert estimate.method == "t-folded"
        yield estimate.value, estimate.low, estimate.high


@pytest.mark.parametrize("errors", [0.0, 0.3, 1.0, 2.0, 5.0])
def test_the_interval_of_a_distance_covers_near_zero_too(errors: float) -> None:
    """The true difference is so many standard errors from 0; skewed values, as quality models give them."""
    rng = np.random.default_rng(int(10 * errors))
    sessions = 120
    true = errors / math.sqrt(sessions)
    drawn = true + (rng.gamma(4.0, size=(1500, sessions)) - 4) / 2
    inside = [low <= true <= high for _, low, high in estimates(drawn)]
    assert 0.935 < np.mean(inside) < 0.99
    values = np.array([value for value, _, _ in estimates(drawn[:400])])
    if errors == 0:  # the bias that the docstring names
        assert values.mean() == pytest.approx(math.sqrt(2 / math.pi / sessions), rel=0.1)


def test_sessions_of_one_source_count_once_in_quality_too() -> None:
    rng = np.random.default_rng(0)
    values, sources = rng.normal(size=30), Sources(np.repeat(np.arange(30), 4), 30)

    def part(found: Values) -> Part:
        return Part(found, np.ones(len(found)), np.zeros(len(found), np.int64), math.nan, math.nan)

    for kind in (Mean, Distance):
        once = kind((part(values),)).estimate(Sources(np.arange(30), 30))
        often = kind((part(np.repeat(values, 4)),)).estimate(sources)
        assert (often.low, often.high) == pytest.approx((once.low, once.high))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.one_of(st.none(), st.floats(0, 9))), min_size=1, max_size=6))
def test_a_rollout_is_scored_once_at_its_last_turn(sessions: list[tuple[int, float | None]]) -> None:
    turns, scores = [], []
    for index, (length, value) in enumerate(sessions):
        for turn in range(1, length + 1):
            turns.append(turn_record(f"s{index}", FREE, turn))
            turns.append(turn_record(f"s{index}", FORCED, turn))
        if value is not None:
            scores.append(score_record(f"s{index}", FREE, length, scorer="all", value=value))
    table = metrics.compute(metrics.turn_table(turns), metrics.score_table(scores), TRAJECTORY, {"all": (0, 9)})
    known = [value for _, value in sessions if value is not None]
    found = row(table, "trajectory_score", None)
    assert (found.n, found.n_missing) == (len(known), len(sessions) - len(known))
    coverage = row(table, "coverage", None)
    assert coverage.value == len(known) / len(sessions) == metrics.coverage_of(table)
    assert set(table[table.scorer == "all"].protocol) == {FREE}
    if known:
        assert found.value == pytest.approx(np.mean(known))
    if known and len(known) < len(sessions):
        lost = len(sessions) - len(known)
        ends = (sum(known) + np.array([0, 9]) * lost) / len(sessions)
        assert (found.worst, found.best) == pytest.approx(tuple(ends))


def test_the_repeats_of_a_rollout_are_one_session() -> None:
    turns = [turn_record(f"s{i}", FREE, turn, repeat) for i in range(3) for turn in (1, 2) for repeat in (1, 2)]
    scores = [
        score_record(f"s{i}", FREE, 2, repeat, scorer="all", value=float(i + repeat))
        for i in range(3)
        for repeat in (1, 2)
    ]
    table = metrics.compute(metrics.turn_table(turns), metrics.score_table(scores), TRAJECTORY)
    found = row(table, "trajectory_score")
    assert (found.value, found.n) == (2.5, 3)
    assert row(table, "seed_spread", None).value == pytest.approx(math.sqrt(0.5))


BOUNDED = ("marginal_success", "turn_success", "conditional_success", "marginal_success_standardised", "overall")
PER_HALF = ("content_consistency", "content_consistency_object", "content_consistency_background")


def with_consistency(codes: Verdicts, kept: Verdicts) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of ``codes``, and a consistency scorer with parts that is right, wrong or missing by ``kept``."""
    turns, scores = tables({FREE: codes})
    extra = [
        score_record(
            f"s{session:03d}", FREE, turn + 1, repeat + 1, scorer="cc", value=float(code),
            parts={"object": float(code), "background": code / 2},
        )
        for (session, turn, repeat), code in np.ndenumerate(kept)
        if code not in MISSING and codes[session, turn, repeat] != NO_TURN
    ]  # fmt: skip
    text = ("session", "protocol", "scorer", "part", "state")
    both = pd.concat([scores.astype(dict.fromkeys(text, object)), metrics.score_table(extra)], ignore_index=True)
    return turns, both.astype(dict.fromkeys(text, "category"))


@settings(max_examples=50, deadline=None)
@given(codes, st.integers(0, 99))
def test_bounds_hold_the_value_also_where_one_scorer_alone_has_gaps(codes: Verdicts, seed: int) -> None:
    if (codes == NO_TURN).all():
        return
    rng = np.random.default_rng(seed)
    kept = rng.choice([SUCCESS, SUCCESS, 0, NO_SCORE], codes.shape)
    table = metrics.compute(*with_consistency(codes, kept), BOTH)
    rows = table[table.metric.isin([*BOUNDED, *PER_HALF, "decay_standardised"]) & table.value.notna()]
    gaps = rows[rows.n_missing > 0]
    assert gaps.worst.notna().all() and gaps.best.notna().all()
    ends = np.sort(gaps[["worst", "best"]].to_numpy(float), axis=1)
    value = gaps.value.to_numpy(float)
    assert (ends[:, 0] <= value + 1e-9).all() and (value <= ends[:, 1] + 1e-9).all()
    whole = rows[rows.n_missing == 0]
    assert whole.worst.isna().all() and whole.best.isna().all()


@pytest.mark.parametrize("seed", range(8))
def test_bounds_are_the_ends_of_all_completions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, kept = (rng.integers(0, 2, (6, 2, 1)) for _ in range(2))
    holes = [(0, int(rng.integers(2)), 0), (1, 0, 0), (2, 1, 0)]
    metrics_at_2 = ("turn_success", "marginal_success", "decay_standardised", "overall", "content_consistency")

    def found(codes: Verdicts) -> pd.DataFrame:
        table = metrics.compute(*with_consistency(codes, kept), BOTH)
        return table[(table.turn == 2) & (table.task_type == "all")].set_index("metric").loc[list(metrics_at_2)]

    ways = []
    for way in itertools.product((0, 1), repeat=len(holes)):
        for hole, code in zip(holes, way, strict=True):
            codes[hole] = code
        ways.append(found(codes).value)
    for hole in holes:
        codes[hole] = NO_SCORE
    mine, ends = found(codes), pd.DataFrame(ways)
    for metric in metrics_at_2:
        least, largest = ends[metric].min(), ends[metric].max()
        if not mine.n_missing[metric]:  # no gap that matters, as in consistency, of which `overall` is made
            assert (least, largest) == pytest.approx((mine.value[metric],) * 2)
        elif metric == "decay_standardised":
            assert (mine.worst[metric], mine.best[metric]) == pytest.approx((largest, least))
        else:
            assert (mine.worst[metric], mine.best[metric]) == pytest.approx((least, largest))
