"""The metrics: identities that must hold, a slow implementation by enumeration, honest intervals, speed."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mteval import metrics
from mteval.scorers.base import Measure
from mteval.tables import Grid
from tests.mteval.verdicts import (
    BOTH,
    FAILURE,
    FOLLOWING,
    FORCED,
    FREE,
    MISSING,
    NO_IMAGE,
    NO_SCORE,
    NO_TURN,
    NOT_APPLICABLE,
    SINGLE,
    SUCCESS,
    Verdicts,
    row,
    score_record,
    tables,
    turn_record,
)

Bounds = tuple[float, float, float] | None
"""Value (NaN where missing), least and largest possible value; None where there is nothing to judge."""


@st.composite
def runs(draw: st.DrawFn, highest: int = NO_TURN, repeats: int = 2) -> dict[str, Verdicts]:
    """Free-running and teacher-forced codes that share turn 1."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, repeats))
    codes = st.sampled_from([SUCCESS, SUCCESS, *range(highest + 1)]).filter(lambda code: code <= highest)
    free, forced = (draw(hnp.arrays(np.int_, shape, elements=codes)) for _ in range(2))
    free[0, 0] = SUCCESS  # never an empty table
    forced = np.where((free == NO_TURN) | (forced == NO_TURN), free, forced)
    forced[:, 0] = free[:, 0]
    return {FREE: free, FORCED: forced}


def possible(code: int) -> tuple[int, ...]:
    """What a verdict can be."""
    return (0, 1) if code in MISSING else (int(code),)


def completions(codes: Verdicts) -> Iterator[tuple[int, ...]]:
    """Every way in which the judged turns of a rollout may have gone."""
    judged = [code for code in codes if code not in (NOT_APPLICABLE, NO_TURN)]
    return itertools.product(*(possible(code) for code in judged))


def of_rollouts(found: list[Bounds]) -> Bounds:
    """Mean over the rollouts with a value; worst and best over all that could have one."""
    there = [bounds for bounds in found if bounds is not None]
    known = [value for value, _, _ in there if not math.isnan(value)]
    if not known:
        return None
    worst, best = (float(np.mean([bounds[k] for bounds in there])) for k in (1, 2))
    return float(np.mean(known)), worst, best


def single(values: set[float]) -> Bounds:
    least, largest = min(values), max(values)
    return (least if len(values) == 1 else math.nan), least, largest


def slow_success_so_far(codes: Verdicts) -> Bounds:
    if codes[-1] == NO_TURN or all(code in (NOT_APPLICABLE, NO_TURN) for code in codes):
        return None
    return single({float(all(way)) for way in completions(codes)})


@settings(max_examples=60, deadline=None)
@given(runs(repeats=1))
def test_products_with_missing_turns_are_what_every_completion_agrees_on(run: dict[str, Verdicts]) -> None:
    table = metrics.compute(*tables(run), FOLLOWING)
    codes = run[FREE][:, :, 0]
    last = int((codes != NO_TURN).any(axis=0).nonzero()[0].max()) + 1
    for turn in range(1, last + 1):
        found = row(table, "turn_success", turn)
        bounds = [slow_success_so_far(session[:turn]) for session in codes]
        expected = of_rollouts(bounds)
        missing = sum(b is not None and math.isnan(b[0]) for b in bounds)
        assert found.n == sum(b is not None for b in bounds) - missing
        assert found.n_missing == missing
        if expected is None:
            assert math.isnan(found.value)
            continue
        assert found.value == pytest.approx(expected[0])
        if missing:
            assert (found.worst, found.best) == pytest.approx(expected[1:])
        else:
            assert math.isnan(found.worst) and math.isnan(found.best)


@settings(max_examples=60, deadline=None)
@given(runs(repeats=1, highest=NO_SCORE))
def test_exposure_bias_is_what_a_loop_over_sessions_gives(run: dict[str, Verdicts]) -> None:
    table = metrics.compute(*tables(run), FOLLOWING)
    free, forced = run[FREE][:, :, 0], run[FORCED][:, :, 0]
    for turn in range(1, free.shape[1] + 1):
        found: dict[str, list[Bounds]] = {"": [], "_drift": [], "_cascade": []}
        for f, g in zip(free, forced, strict=True):
            if NOT_APPLICABLE in (f[turn - 1], g[turn - 1]):
                continue
            earlier = {float(all(way)) for way in completions(f[: turn - 1])}
            pair = {float(a - b) for a in possible(g[turn - 1]) for b in possible(f[turn - 1])}
            known = len(earlier) == 1 and len(pair) == 1
            for name, weights in (("", {1.0}), ("_drift", earlier), ("_cascade", {1 - p for p in earlier})):
                ways = {weight * difference for weight in weights for difference in pair}
                found[name].append((min(ways) if known else math.nan, min(ways), max(ways)))
        for name, bounds in found.items():
            expected, actual = of_rollouts(bounds), row(table, f"exposure_bias{name}", turn, "paired")
            assert actual.n + actual.n_missing == len(bounds)
            if expected is None:
                assert math.isnan(actual.value)
                continue
            assert actual.value == pytest.approx(expected[0])
            if actual.n_missing:
                assert (actual.best, actual.worst) == pytest.approx(expected[1:])


@settings(max_examples=60, deadline=None)
@given(runs(repeats=1, highest=NO_SCORE))
def test_conditional_success_is_what_a_loop_over_sessions_gives(run: dict[str, Verdicts]) -> None:
    table = metrics.compute(*tables(run), FOLLOWING)
    codes = run[FREE][:, :, 0]
    for turn in range(1, codes.shape[1] + 1):
        now = [
            (earlier, session[turn - 1])
            for session in codes
            if session[turn - 1] != NOT_APPLICABLE
            if 1.0 in (earlier := {float(all(way)) for way in completions(session[: turn - 1])})
        ]
        known = [code for earlier, code in now if earlier == {1.0} and code in (FAILURE, SUCCESS)]
        found = row(table, "conditional_success", turn)
        assert (found.n, found.n_missing) == (len(known), len(now) - len(known))
        if known:
            assert found.value == pytest.approx(np.mean(known))
            if found.n_missing:
                ways = [list(itertools.product(earlier, possible(code))) for earlier, code in now]
                rates = [
                    sum(s for p, s in way if p) / count
                    for way in itertools.product(*ways)
                    if (count := sum(p for p, _ in way))
                ]
                assert (found.worst, found.best) == pytest.approx((min(rates), max(rates)))


@settings(max_examples=60, deadline=None)
@given(runs())
def test_exposure_bias_splits_exactly(run: dict[str, Verdicts]) -> None:
    table = metrics.compute(*tables(run), FOLLOWING)
    paired = table[table.protocol == "paired"].set_index(["metric", "turn"])
    for turn in paired.loc["exposure_bias"].index:
        whole, drift, cascade = (paired.loc[(f"exposure_bias{name}", turn)] for name in ("", "_drift", "_cascade"))
        assert whole.n == drift.n == cascade.n and whole.n_missing == drift.n_missing == cascade.n_missing
        if whole.n:
            assert whole.value == pytest.approx(drift.value + cascade.value, abs=1e-12)
    first = row(table, "exposure_bias", 1, "paired")
    if first.n:
        assert (first.value, first.low, first.high, first.method) == (0, 0, 0, "shared")


@settings(max_examples=60, deadline=None)
@given(runs(highest=SUCCESS, repeats=3))
def test_complete_sessions_keep_the_invariants(run: dict[str, Verdicts]) -> None:
    table = metrics.compute(*tables({**run, SINGLE: run[FORCED]}), FOLLOWING)
    marginal = table[(table.metric == "marginal_success") & (table.task_type == "all") & table.turn.notna()]
    free = marginal[marginal.protocol == FREE].value.to_numpy()
    success = table[(table.metric == "turn_success") & (table.protocol == FREE)].value.to_numpy()
    assert success[0] == free[0]
    assert (np.diff(success) <= 1e-12).all()
    assert (success <= np.minimum.accumulate(free) + 1e-12).all()
    assert success == pytest.approx(np.logical_and.accumulate(run[FREE] == 1, axis=1).mean(axis=(0, 2)))
    ends = table[["value", "low", "high"]].dropna()
    assert ((ends.low <= ends.value + 1e-9) & (ends.value <= ends.high + 1e-9)).all()


@settings(max_examples=30, deadline=None)
@given(runs(), st.integers(0, 99))
def test_the_order_of_rows_means_nothing(run: dict[str, Verdicts], seed: int) -> None:
    turns, scores = tables(run)
    shuffled = [frame.sample(frac=1, random_state=seed) for frame in (turns, scores)]
    as_text = [frame.astype({name: object for name in frame if frame[name].dtype == "category"}) for frame in shuffled]
    again = metrics.compute(as_text[0], as_text[1], FOLLOWING)
    pd.testing.assert_frame_equal(metrics.compute(turns, scores, FOLLOWING), again)


def single_shot(verdicts: list[list[list[int]]]) -> pd.DataFrame:
    """Metrics of sessions whose turn t is judged for the instructions 1..t."""
    turns, scores = [], []
    for session, by_turn in enumerate(verdicts):
        for turn, judged in enumerate(by_turn, start=1):
            key = (f"s{session}", SINGLE, turn)
            turns.append(turn_record(*key))
            for k, code in enumerate(judged, start=1):
                if code == NOT_APPLICABLE:
                    scores.append(score_record(*key, judged=k, state="not_applicable"))
                else:
                    scores.append(score_record(*key, judged=k, value=float(code), success=bool(code)))
    return metrics.compute(metrics.turn_table(turns), metrics.score_table(scores), FOLLOWING)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=6))
def test_single_shot_judges_every_instruction(bits: list[list[bool]]) -> None:
    table = single_shot([[[*map(int, b[:1])], [*map(int, b[1:3])], [*map(int, b[3:])]] for b in bits])
    for turn, cut in ((1, slice(0, 1)), (2, slice(1, 3)), (3, slice(3, 6))):
        held = np.array([b[cut] for b in bits])
        assert row(table, "turn_success", turn, SINGLE).value == pytest.approx(held.all(axis=1).mean())
        assert row(table, "marginal_success", turn, SINGLE).value == pytest.approx(held[:, -1].mean())
        assert row(table, "subinstruction_success", turn, SINGLE).value == pytest.approx(held.mean())
        assert row(table, "turn_success", turn, SINGLE).value <= row(table, "marginal_success", turn, SINGLE).value


def test_an_instruction_that_the_reference_dropped_does_not_count() -> None:
    table = single_shot([[[1], [NOT_APPLICABLE, 1]], [[0], [1, 0]]])
    assert row(table, "turn_success", 2, SINGLE).value == 0.5
    subs = row(table, "subinstruction_success", 2, SINGLE)
    assert (subs.value, subs.n, subs.n_missing) == (pytest.approx(2 / 3), 3, 0)
    assert row(table, "coverage", None, SINGLE).value == 1


def test_missing_is_bounded_and_not_applicable_is_not_missing() -> None:
    codes = np.array([SUCCESS, FAILURE, NO_IMAGE, NO_SCORE, NOT_APPLICABLE])[:, None, None]
    table = metrics.compute(*tables({FREE: codes}), FOLLOWING)
    found = row(table, "marginal_success", 1)
    assert (found.value, found.n, found.n_missing, found.worst, found.best) == (0.5, 2, 2, 0.25, 0.75)
    coverage = row(table, "coverage")
    assert (coverage.value, coverage.n, coverage.n_missing) == (0.5, 2, 2)
    assert row(table, "turns_failed").value == 1
    assert metrics.coverage_of(table) == metrics.coverage_of(table, FREE) == 0.5
    assert math.isnan(metrics.coverage_of(table, FORCED))


def test_no_judgement_is_no_number() -> None:
    table = metrics.compute(*tables({FREE: np.full((4, 2, 1), NO_IMAGE)}), FOLLOWING)
    found = row(table, "marginal_success", 2)
    assert math.isnan(found.value) and (found.n, found.n_missing, found.worst, found.best) == (0, 4, 0.0, 1.0)
    empty = metrics.compute(metrics.turn_table([]), metrics.score_table([]), FOLLOWING)
    assert empty.empty and tuple(empty.columns) == metrics.COLUMNS


def test_types_are_weighted_alike() -> None:
    codes = np.array([[1, 0], [1, 1], [1, 1], [0, 0], [0, 1], [0, 1], [0, 1]])[:, :, None]
    types = [["add", "text"]] * 3 + [["text", "add"]] * 4
    table = metrics.compute(*tables({FREE: codes}, types), FOLLOWING)
    assert row(table, "marginal_success", 1, task_type="add").value == 1
    assert row(table, "marginal_success", None, task_type="add").value == pytest.approx(6 / 7)
    assert row(table, "marginal_success", 1).value == pytest.approx(3 / 7)
    assert row(table, "marginal_success_standardised", 1).value == pytest.approx((1 + 0) / 2)
    second = (3 / 4 + 2 / 3) / 2
    assert row(table, "marginal_success_standardised", 2).value == pytest.approx(second)
    assert row(table, "decay_standardised", 2).value == pytest.approx(0.5 - second)
    assert row(table, "decay", 2).value == pytest.approx(3 / 7 - 5 / 7)


def consistency(values: list[dict[str, float]], success: list[bool], psnr: list[float]) -> pd.DataFrame:
    turns = [turn_record(f"s{i}", FREE, 1) for i in range(len(values))]
    scores = [
        score_record(turn.session, FREE, 1, value=float(s), success=s) for turn, s in zip(turns, success, strict=True)
    ]
    for turn, parts in zip(turns, values, strict=True):
        scores.append(score_record(turn.session, FREE, 1, scorer="cc", value=0.5, parts=parts))
    for turn, decibel in zip(turns, psnr, strict=True):
        scores.append(score_record(turn.session, FREE, 1, scorer="psnr", value=decibel))
    measures: dict[str, Measure] = {**BOTH, "psnr": "reference_psnr"}
    return metrics.compute(metrics.turn_table(turns), metrics.score_table(scores), measures)


def test_content_consistency_is_the_half_sum_of_two_means() -> None:
    values = [{"object": 0.8, "background": 0.9, "step_object": 0.5}, {"object": 0.6}, {"background": 0.5}]
    table = consistency(values, [True, True, False], [20.0, math.inf, 30.0])
    halves = [row(table, f"content_consistency_{name}", 1) for name in ("object", "background")]
    assert [(half.value, half.n) for half in halves] == [(pytest.approx(0.7), 2), (pytest.approx(0.7), 2)]
    whole = row(table, "content_consistency", 1)
    assert (whole.value, whole.n, whole.n_missing) == (pytest.approx(0.7), 3, 0)
    assert row(table, "content_consistency_step", 1).value == 0.5
    overall = row(table, "overall", 1)
    assert overall.value == pytest.approx(math.sqrt(2 / 3 * 0.7)) and overall.scorer == "if+cc"
    assert 0 <= overall.low < overall.value < overall.high <= 1
    assert row(table, "reference_psnr", 1).value == pytest.approx(50.0)


def test_one_empty_half_leaves_no_content_consistency() -> None:
    table = consistency([{"object": 0.8, "background": 1.0}, {"object": 0.6}], [True, True], [20.0, 30.0])
    assert row(table, "content_consistency", 1).value == pytest.approx((0.7 + 1.0) / 2)
    turns, scores = tables({FREE: np.ones((3, 1, 1), dtype=int)})
    table = metrics.compute(turns, scores, BOTH)
    found = row(table, "content_consistency", 1)
    assert math.isnan(found.value) and (found.n, found.n_missing, found.worst, found.best) == (0, 3, 0, 1)


def test_repeats_are_averaged_within_the_session() -> None:
    codes = np.array([[[1, 0], [0, 1]], [[1, 1], [1, 1]]])  # session, turn, repeat
    table = metrics.compute(*tables({FREE: codes}), FOLLOWING)
    found = row(table, "turn_success", 2)
    assert (found.value, found.n) == (0.5, 2)
    assert row(table, "marginal_success", 2).value == 0.75
    assert row(table, "seed_spread", 2).value == pytest.approx(np.std([0.5, 1.0], ddof=1))
    partly = np.where(codes == 0, NO_SCORE, codes)
    found = row(metrics.compute(*tables({FREE: partly}), FOLLOWING), "marginal_success", 1)
    assert (found.value, found.n, found.n_missing, found.worst, found.best) == (1.0, 2, 1, 0.75, 1.0)


def test_teacher_forced_has_no_products() -> None:
    ones = np.ones((3, 2, 1), dtype=int)
    table = metrics.compute(*tables({FORCED: ones, FREE: ones}), BOTH)
    assert set(table[table.metric.isin(["turn_success", "overall", "conditional_success"])].protocol) == {FREE}


class Simulation:
    """Verdict tables with known true values, made by filling the columns of one table again and again."""

    sessions, turns = 200, 3

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        protocol, turn, session = (
            axis.ravel() for axis in np.meshgrid((FREE, FORCED), (1, 2, 3), range(self.sessions), indexing="ij")
        )
        names = np.array([f"s{i:03d}" for i in range(self.sessions)])[session]
        key = {"session": pd.Categorical(names), "protocol": pd.Categorical(protocol), "turn": turn, "repeat": 1}
        text = {"source_id": key["session"], "task_type": "add", "state": "ok"}
        self.turn_table = pd.DataFrame(key | text).astype({"task_type": "category", "state": "category"})
        parts = [
            pd.DataFrame(key | {"scorer": scorer, "judged": turn, "part": part, "state": "ok"})
            for scorer, part in (("if", ""), ("cc", ""), ("cc", "object"), ("cc", "background"))
        ]
        self.score_table = pd.concat(parts, ignore_index=True).astype(
            dict.fromkeys(("session", "protocol", "scorer", "part", "state"), "category")
        )

    def rates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Teacher-forced rates, and the chances to lose and to gain a success free-running; all true rates in range."""
        while True:
            forced = self.rng.uniform(0.05, 0.95, 3)
            lose, gain = np.exp(self.rng.uniform(math.log(0.002), math.log(0.5), (2, 3)))
            lose[0] = gain[0] = 0.0
            free = forced * (1 - lose) + (1 - forced) * gain
            if free.max() < 0.95 and free.min() > 0.05 and free.prod() > 0.05:
                return forced, lose, gain

    def draw(self) -> tuple[Grid, dict[tuple[str, str, int], float]]:
        """A new table, and the truth by (metric, protocol, turn)."""
        shape = self.turns, self.sessions
        rates, lose, gain = self.rates()
        forced = self.rng.random(shape) < rates[:, None]
        moved = self.rng.random(shape) < np.where(forced, lose[:, None], gain[:, None])
        free = forced ^ moved
        free_rates = rates * (1 - lose) + (1 - rates) * gain
        truth: dict[tuple[str, str, int], float] = {}
        for t, so_far in enumerate(np.cumprod([1.0, *free_rates[:-1]]), start=1):
            bias = rates[t - 1] - free_rates[t - 1]
            truth[("marginal_success", FREE, t)] = free_rates[t - 1]
            truth[("marginal_success", FORCED, t)] = rates[t - 1]
            truth[("turn_success", FREE, t)] = so_far * free_rates[t - 1]
            if t > 1:
                truth[("exposure_bias", "paired", t)] = bias
                truth[("exposure_bias_drift", "paired", t)] = so_far * bias
                truth[("exposure_bias_cascade", "paired", t)] = (1 - so_far) * bias
        kept, consistent = self._consistency()
        for t, mean in enumerate(consistent, start=1):
            truth[("content_consistency", FREE, t)] = mean
        following = np.concatenate([free.ravel(), forced.ravel()]).astype(float)
        value = np.concatenate([following, *kept])
        success = np.concatenate([following, np.full(len(value) - len(following), np.nan)])
        scores = self.score_table.assign(value=value, success=success)[~np.isnan(value)]
        return Grid(self.turn_table, scores), truth

    def _consistency(self) -> tuple[list[np.ndarray], list[float]]:
        """Values of the whole, the object and the background part for both protocols, and the true CC_t.

        A session is damaged with a chance of its own turn; damage hits both parts; a quarter has no background.
        """
        damaged = self.rng.uniform(0.05, 0.9, 3)
        hit = self.rng.random((2, self.turns, self.sessions)) < damaged[:, None]
        parts = [np.where(hit, self.rng.beta(2, 3, hit.shape), self.rng.beta(40, 1, hit.shape)) for _ in range(2)]
        parts[1][self.rng.random(hit.shape) < 0.25] = np.nan
        truth = damaged * 0.4 + (1 - damaged) * 40 / 41
        return [np.ones(hit.size), *(part.ravel() for part in parts)], truth.tolist()


def test_intervals_are_honest() -> None:
    """Over 2,000 simulated tables the 95 % intervals of every metric at every turn cover between 92 and 98 %."""
    simulation = Simulation(seed=0)
    inside: dict[tuple[str, str, int], list[bool]] = {}
    for _ in range(2000):
        grid, truth = simulation.draw()
        for label, quantity in metrics.quantities(grid, BOTH, by_type=False):  # what `compute` makes its rows from
            true = truth.get(key := (label.metric, label.protocol, label.turn or 0))
            if true is not None:
                estimate = quantity.estimate(grid.sources)
                inside.setdefault(key, []).append(estimate.low <= true <= estimate.high)
    coverage = {key: float(np.mean(found)) for key, found in inside.items()}
    assert len(coverage) == 18 and {len(found) for found in inside.values()} == {2000}
    assert all(0.92 < share < 0.98 for share in coverage.values()), coverage


@pytest.mark.slow
def test_a_hundred_thousand_sessions_take_seconds() -> None:
    """100,000 sessions x 10 turns x 2 protocols, one scorer with success and one with two parts: 8 million rows."""
    rng = np.random.default_rng(0)
    sessions, turns = 100_000, 10
    protocol, turn, session = (
        axis.ravel() for axis in np.meshgrid((0, 1), range(1, turns + 1), range(sessions), indexing="ij")
    )
    names = pd.Index([f"s{i:06d}" for i in range(sessions)])
    key = {
        "session": pd.Categorical.from_codes(session, categories=names),
        "protocol": pd.Categorical.from_codes(protocol, categories=pd.Index([FREE, FORCED])),
        "turn": turn,
        "repeat": 1,
    }
    types = rng.integers(0, 9, (turns, sessions))[turn - 1, session]
    rows = len(session)
    turn_table = pd.DataFrame(
        key
        | {
            "source_id": key["session"],
            "task_type": pd.Categorical.from_codes(types, categories=pd.Index([f"type-{i}" for i in range(9)])),
            "state": "ok",
        }
    )
    success = (rng.random(rows) < 0.8).astype(float)
    columns = {"judged": turn, "state": "ok"}
    frames = [pd.DataFrame(key | columns | {"scorer": "if", "part": "", "value": success, "success": success})]
    for part in ("", "object", "background"):
        value = rng.beta(20, 1, rows)
        frames.append(pd.DataFrame(key | columns | {"scorer": "cc", "part": part, "value": value, "success": np.nan}))
    text = ("session", "protocol", "scorer", "part", "state")
    scores = pd.concat(frames, ignore_index=True).astype(dict.fromkeys(text, "category"))
    began = time.process_time()
    table = metrics.compute(turn_table.astype({"state": "category"}), scores, BOTH)
    took = time.process_time() - began
    assert row(table, "turn_success", 10).n == sessions
    assert took < 10, f"{took:.1f} s"
