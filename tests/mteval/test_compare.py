"""Comparison of runs: on shared sessions, with honest verdicts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from mteval import compare as comparing
from mteval.compare import NOT_DISTINGUISHABLE, Tables, compare, rank
from mteval.errors import UsageError
from mteval.estimators import Overall, Part, Rate, Sources
from mteval.metrics import compute, score_table, turn_table
from mteval.scorers.base import Measure
from mteval.stats import holm, mcnemar
from tests.mteval.verdicts import (
    FOLLOWING,
    FORCED,
    FREE,
    NO_IMAGE,
    Verdicts,
    row,
    score_record,
    tables,
    turn_record,
)


def run(rate: float, seed: int, sessions: int = 200, turns: int = 3, repeats: int = 1, per_source: int = 1) -> Tables:
    rng = np.random.default_rng(seed)
    free, forced = ((rng.random((sessions, turns, repeats)) < rate).astype(int) for _ in range(2))
    forced[:, 0] = free[:, 0]
    return Tables(*tables({FREE: free, FORCED: forced}, per_source=per_source))


def only(table: pd.DataFrame, metric: str, turn: int | None, protocol: str = FREE) -> pd.Series:
    rows = table[(table.metric == metric) & (table.protocol == protocol)]
    rows = rows[rows.turn.isna() if turn is None else rows.turn == turn]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_run_against_itself_is_not_distinguishable() -> None:
    a = run(0.6, 0)
    table = compare(a, a, FOLLOWING)
    assert (table.verdict == NOT_DISTINGUISHABLE).all()
    assert (table.difference == 0).all() and (table.p_value == 1).all()


def test_a_better_run_is_told_apart_and_the_other_way_round_too() -> None:
    a, b = run(0.9, 1), run(0.6, 2)
    there, back = compare(a, b, FOLLOWING), compare(b, a, FOLLOWING)
    forwards, backwards = (only(table, "turn_success", 3) for table in (there, back))
    assert (forwards.verdict, backwards.verdict) == ("A better", "B better")
    assert (forwards.low, forwards.high) == pytest.approx((-backwards.high, -backwards.low))
    own = [row(compute(*tables_, FOLLOWING), "turn_success", 3).value for tables_ in (a, b)]
    assert [forwards.value_a, forwards.value_b] == pytest.approx(own)


def test_paired_verdicts_get_mcnemars_exact_test() -> None:
    a, b = run(0.8, 3), run(0.72, 4)
    found = only(compare(a, b, FOLLOWING), "turn_success", 2)
    wide = [
        tables_.scores.query("protocol == @FREE and turn <= 2").groupby("session", observed=True).success.min()
        for tables_ in (a, b)
    ]
    counts = pd.crosstab(wide[0], wide[1]).to_numpy()
    assert found.p_value == pytest.approx(reference_mcnemar(counts, exact=True).pvalue)
    assert found.method == "tango, mcnemar"


def test_a_smaller_exposure_bias_is_the_better_one() -> None:
    sessions = 300
    good = np.ones((sessions, 2, 1), dtype=int)
    bad = good.copy()
    bad[::2, 1] = 0
    steady, drifting = (Tables(*tables({FREE: free, FORCED: good})) for free in (good, bad))
    found = only(compare(steady, drifting, FOLLOWING), "exposure_bias", 2, "paired")
    assert (found.value_a, found.value_b, found.verdict, found.method) == (0, 0.5, "A better", "bootstrap")


@pytest.mark.parametrize("options", [{"repeats": 3}, {"per_source": 4}])
def test_repeats_and_shared_sources_are_bootstrapped(options: dict[str, int]) -> None:
    a, b = run(0.9, 5, **options), run(0.6, 6, **options)
    found = only(compare(a, b, FOLLOWING), "turn_success", 2)
    assert found.method == "bootstrap" and found.verdict == "A better"
    assert found.low < found.difference < found.high


def test_bootstrap_and_analytic_interval_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = run(0.8, 7, repeats=2), run(0.7, 8, repeats=2)
    drawn = only(compare(a, b, FOLLOWING), "turn_success", 3)
    monkeypatch.setattr(comparing, "BOOTSTRAP_UP_TO", 100)
    analytic = only(compare(a, b, FOLLOWING), "turn_success", 3)
    assert (drawn.method, analytic.method) == ("bootstrap", "t-jackknife")
    assert (drawn.low, drawn.high) == pytest.approx((analytic.low, analytic.high), abs=0.01)


def test_equal_models_are_told_apart_as_often_as_the_level_says() -> None:
    """Differences of two models with the same rates, with repeats, so that the bootstrap decides."""
    verdicts = [
        only(compare(run(0.7, 2 * i, 100, 1, 2), run(0.7, 2 * i + 1, 100, 1, 2), FOLLOWING), "turn_success", 1).verdict
        for i in range(60)
    ]
    assert sum(verdict != NOT_DISTINGUISHABLE for verdict in verdicts) <= 8  # 3 expected


def test_only_shared_sessions_and_turns_with_data_in_both_count() -> None:
    codes: Verdicts = np.ones((6, 3, 1), dtype=int)
    a = Tables(*tables({FREE: codes}))
    fewer = codes[:4, :2].copy()
    fewer[0, 0] = NO_IMAGE
    fewer[1, 0] = 0
    b = Tables(*tables({FREE: fewer}))
    table = compare(a, b, FOLLOWING)
    assert table.turn.max() == 2
    found = only(table, "marginal_success", 1)
    assert (found.n, found.value_a, found.value_b) == (3, 1, pytest.approx(2 / 3))


def test_runs_without_a_common_session_are_refused() -> None:
    a = run(0.5, 0, sessions=3)
    other = Tables(*(frame.assign(session=frame.session.astype(str) + "x") for frame in a))
    with pytest.raises(UsageError, match="no session in common"):
        compare(a, other, FOLLOWING)


def test_the_ranking_has_tie_groups_and_leaves_out_poor_coverage() -> None:
    broken = np.ones((300, 3, 1), dtype=int)
    broken[:90] = NO_IMAGE
    runs = {
        "good": run(0.9, 1, 300),
        "as good": run(0.9, 2, 300),
        "bad": run(0.6, 3, 300),
        "broken": Tables(*tables({FREE: broken})),
    }
    table, pairs = rank(runs, FOLLOWING)
    assert set(table.model[:2]) == {"good", "as good"} and table.model.tolist()[2:] == ["bad", "broken"]
    assert table.group.tolist() == ["a", "a", "b", ""]
    assert table.ranked.tolist() == [True, True, True, False]
    assert len(pairs) == 3 and (pairs.p_adjusted >= pairs.p_value).all()


def test_one_run_ranks_alone() -> None:
    table, pairs = rank({"only": run(0.5, 0, 20)}, FOLLOWING)
    assert table.group.tolist() == ["a"] and pairs.empty
    with pytest.raises(UsageError, match="no free-running turn_success"):
        rank({"forced": Tables(*tables({FORCED: np.ones((2, 2, 1), dtype=int)}))}, FOLLOWING)


def alike(rng: np.random.Generator, models: int, sessions: int, spread: float = 2.0) -> list[np.ndarray]:
    """Verdicts of equal models that find the same sessions hard."""
    rates = rng.beta(0.6 * spread, 0.4 * spread, sessions)
    return [(rng.random(sessions) < rates).astype(float) for _ in range(models)]


def test_holm_tells_equal_models_apart_as_seldom_as_it_promises() -> None:
    """Five equal models, ten pairs: in at most 5 % of the boards any two are told apart."""
    rng, wrong, unadjusted = np.random.default_rng(0), [], []
    for _ in range(600):
        models = alike(rng, 5, 150)
        pairs = [(int((a > b).sum()), int((a < b).sum())) for a, b in itertools.combinations(models, 2)]
        p_values = [mcnemar(gains, losses) for gains, losses in pairs]
        unadjusted.append(min(p_values) < 0.05)
        wrong.append(min(holm(p_values)) < 0.05)
    assert np.mean(wrong) <= 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5
    assert np.mean(unadjusted) > 0.1  # what comes of looking at every pair by itself


def test_holm_over_bootstraps_of_shared_sources_keeps_its_promise_too() -> None:
    """Three equal models on 60 sources of three sessions each, compared by consistency."""
    rng, wrong = np.random.default_rng(1), []
    sources = Sources(np.repeat(np.arange(60), 3), 60)
    draws = comparing._Draws(sources, 0)
    for _ in range(200):
        hard = np.repeat(rng.random(60), 3)
        models = []
        for _ in range(3):
            kept = np.clip(0.7 - 0.4 * hard + np.repeat(rng.normal(0, 0.1, 60), 3) + rng.normal(0, 0.1, 180), 0, 1)
            models.append(Rate((Part(kept, np.ones(180), np.zeros(180, np.int64), 0.0, 1.0),)))
        found = [comparing._difference(a, b, draws) for a, b in itertools.combinations(models, 2)]
        assert {difference.method for difference in found} == {"bootstrap"}
        wrong.append(min(holm([difference.p_value for difference in found])) < 0.05)
    assert np.mean(wrong) <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_the_ranking_tells_apart_what_differs_and_nothing_else() -> None:
    """Six boards of two equal pairs: the letters split the pairs from each other, and seldom a pair."""
    split = []
    for board in range(6):
        seeds = {"good": 2 * board, "as good": 2 * board + 1, "bad": 500 + board, "as bad": 600 + board}
        runs = {name: run(0.9 if "good" in name else 0.6, seed, 250, 1) for name, seed in seeds.items()}
        table, pairs = rank(runs, FOLLOWING)
        group = dict(zip(table.model, table.group, strict=True))
        assert not set(group["good"] + group["as good"]) & set(group["bad"] + group["as bad"])
        split.append(group["good"] != group["as good"] or group["bad"] != group["as bad"])
        assert pairs.p_adjusted.tolist() == pytest.approx(multipletests(pairs.p_value, method="holm")[1].tolist())
    assert sum(split) <= 2


@pytest.mark.parametrize("metric", ["turn_success", "marginal_success", "exposure_bias", "survival", "collapse"])
def test_runs_are_ranked_by_any_metric_the_better_first(metric: str) -> None:
    steady = run(0.9, 1, 300)
    codes = np.where(np.random.default_rng(3).random((300, 3, 1)) < 0.5, 0, 1)
    codes[:, 0] = 1
    sinking = Tables(*tables({FREE: codes, FORCED: np.ones((300, 3, 1), dtype=int)}))
    measure: Measure = metric if metric in ("survival", "collapse") else "instruction_following"  # type: ignore[assignment]
    table, pairs = rank({"sinking": sinking, "steady": steady}, {"if": measure}, metric)
    # With collapse a "success" is a collapsed turn, of which the run of successes has more.
    assert table.model.tolist() == (["sinking", "steady"] if metric == "collapse" else ["steady", "sinking"])
    assert table.group.tolist() == ["a", "b"]
    values = table.value.tolist()
    assert values == sorted(values, reverse=metric not in ("exposure_bias", "collapse"))
    verdict = pairs.verdict.item()
    assert verdict == ("A better" if pairs.model_a.item() == table.model[0] else "B better")


def test_a_ranking_by_what_is_not_there_is_refused() -> None:
    runs = {"a": run(0.5, 0, 20), "b": run(0.5, 1, 20)}
    with pytest.raises(UsageError, match="did you mean overall"):
        rank(runs, FOLLOWING, "overal")
    with pytest.raises(UsageError, match="made of scores of content_consistency"):
        rank(runs, FOLLOWING, "overall")
    with pytest.raises(UsageError, match="no single-shot subinstruction_success"):
        rank(runs, FOLLOWING, "subinstruction_success")


@pytest.mark.parametrize("seed", range(6))
def test_what_is_missing_bounds_the_difference(seed: int) -> None:
    """The ends are those of all completions of both runs."""
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 2, (8, 2, 1)) for _ in range(2))
    holes = [(first, (0, 1, 0)), (first, (1, 0, 0)), (second, (1, 1, 0)), (second, (2, 1, 0))]

    def differences() -> dict[str, Any]:
        a, b = (Tables(*tables({FREE: codes})) for codes in (first, second))
        table = compare(a, b, FOLLOWING)
        return {metric: only(table, metric, 2) for metric in ("turn_success", "marginal_success")}

    ways = []
    for way in itertools.product((0, 1), repeat=len(holes)):
        for (codes, place), code in zip(holes, way, strict=True):
            codes[place] = code
        whole = differences()
        assert all(found.n_missing == 0 and np.isnan(found.least) for found in whole.values())
        ways.append({metric: found.difference for metric, found in whole.items()})
    for codes, place in holes:
        codes[place] = NO_IMAGE
    for metric, mine in differences().items():
        ends = [way[metric] for way in ways]
        if mine.n_missing:
            assert (mine.least, mine.largest) == pytest.approx((min(ends), max(ends)))
        else:
            assert min(ends) == max(ends)
        assert mine.n_missing <= 3  # of four gaps two are in one session
    assert differences()["marginal_success"].n_missing == 3


def test_quality_is_higher_or_lower_and_its_distance_better_or_worse() -> None:
    def quality(level: float, seed: int) -> Tables:
        rng = np.random.default_rng(seed)
        turns = [turn_record(f"s{i}", FREE, 1) for i in range(80)]
        scores = [
            score_record(f"s{i}", FREE, 1, scorer="vq", value=float(level + rng.normal()), parts={"source": 5.0})
            for i in range(80)
        ]
        return Tables(turn_table(turns), score_table(scores))

    a, b = quality(5.0, 0), quality(8.0, 1)
    table = compare(a, b, {"vq": "visual_quality"})
    assert only(table, "visual_quality", 1).verdict == "B higher"
    assert only(table, "visual_quality_delta", 1).verdict == "A better"


@pytest.mark.parametrize("sources", [8, 12, 30])
def test_few_sources_are_not_told_apart_too_often(sources: int) -> None:
    """Equal models on few start images: the bootstrap alone says "better" in more than one case in ten of eight."""
    rng = np.random.default_rng(sources)
    of = Sources(np.repeat(np.arange(sources), 2), sources)
    draws, wrong = comparing._Draws(of, 0), []
    for _ in range(800):
        hard = np.repeat(rng.random(sources), 2)
        models = []
        for _ in range(2):
            kept = np.clip(0.9 - 0.5 * hard + rng.normal(0, 0.15, 2 * sources), 0, 1)
            done = (rng.random(2 * sources) < 0.8 - 0.3 * hard).astype(float)
            none, ones = np.zeros(2 * sources, np.int64), np.ones(2 * sources)
            models.append(Overall((Part(done, ones, none, 0.0, 1.0), Part(kept, ones, none, 0.0, 1.0))))
        found = comparing._difference(models[0], models[1], draws)
        assert found.method == "t-jackknife"
        wrong.append(found.p_value < 0.05)
    assert np.mean(wrong) <= 0.05 + 3 * (0.05 * 0.95 / 800) ** 0.5


def test_a_difference_that_every_source_shows_is_a_sign_test() -> None:
    for sources in (4, 12):
        of = Sources(np.repeat(np.arange(sources), 2), sources)
        one, none = (
            Rate((Part(np.full(2 * sources, value), np.ones(2 * sources), np.zeros(2 * sources, np.int64), 0.0, 1.0),))
            for value in (1.0, 0.0)
        )
        found = comparing._difference(one, none, comparing._Draws(of, 0))
        assert (found.difference, found.p_value) == (1, 2.0 ** (1 - sources))
