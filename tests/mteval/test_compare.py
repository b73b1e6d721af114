"""Comparison of runs: on shared sessions, with honest verdicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from mteval import compare as comparing
from mteval.compare import NOT_DISTINGUISHABLE, Tables, compare, rank
from mteval.errors import UsageError
from mteval.metrics import compute
from tests.mteval.verdicts import FOLLOWING, FORCED, FREE, NO_IMAGE, Verdicts, row, tables


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
    table, pairs = rank(runs, "if")
    assert set(table.model[:2]) == {"good", "as good"} and table.model.tolist()[2:] == ["bad", "broken"]
    assert table.group.tolist() == ["a", "a", "b", ""]
    assert table.ranked.tolist() == [True, True, True, False]
    assert len(pairs) == 3 and (pairs.p_adjusted >= pairs.p_value).all()


def test_one_run_ranks_alone() -> None:
    table, pairs = rank({"only": run(0.5, 0, 20)}, "if")
    assert table.group.tolist() == ["a"] and pairs.empty
    with pytest.raises(UsageError, match="no free-running turn_success"):
        rank({"forced": Tables(*tables({FORCED: np.ones((2, 2, 1), dtype=int)}))}, "if")
