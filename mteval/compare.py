"""Runs against each other, on the sessions they share.

A metric that is one verdict a session (one repeat, every source one session) is compared by Tango's interval of the
paired difference and McNemar's exact test. Everything else is compared by the paired bootstrap: sources are drawn
again, the same draw for both runs; above :data:`BOOTSTRAP_UP_TO` sources by the variance from leaving out one source
and Student's t. A session counts only where both runs have data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from mteval.errors import UsageError
from mteval.estimators import Quantity, Sources, jackknife_variance
from mteval.metrics import RANKED_FROM, Label, compute, coverage_of, quantities
from mteval.scorers.base import Measure
from mteval.stats import ALPHA, Floats, compact_letters, holm, mcnemar, student, tango
from mteval.tables import Grid

BOOTSTRAP_UP_TO = 1000
"""The largest number of sources that is resampled; above it the analytic interval has the same coverage."""

DRAWS = 4000
NOT_DISTINGUISHABLE = "not distinguishable"

_COMPARED = (
    *("marginal_success", "turn_success", "subinstruction_success", "overall"),
    *("content_consistency", "content_consistency_object", "content_consistency_background"),
    *("content_consistency_step", "reference_psnr"),
)
_LOWER_IS_BETTER = ("exposure_bias", "exposure_bias_drift", "exposure_bias_cascade")
_DIFFERENCE = ("value_a", "value_b", "difference", "low", "high", "n", "p_value", "method")


class Tables(NamedTuple):
    """The two tables of a run, as :func:`mteval.metrics.turn_table` and ``score_table`` give them."""

    turns: pd.DataFrame
    scores: pd.DataFrame


class Difference(NamedTuple):
    """A minus B on the sessions that both have data for.

    Attributes:
        value_a, value_b: on these sessions, so they may differ from the runs' own numbers.
        low, high: 95 % interval of the difference. p_value: two-sided.
        n: how many sessions (or judged turns, where a metric pools them).
        method: ``tango, mcnemar``, ``bootstrap`` or ``t-jackknife``; ``none`` without data.
    """

    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    n: int
    p_value: float
    method: str


def compare(a: Tables, b: Tables, measures: Mapping[str, Measure], *, seed: int = 0) -> pd.DataFrame:
    """Every metric of two runs at every turn that both have, over all task types.

    Args:
        measures: scorer -> what it measures, of the scorers that both runs have. seed: of the bootstrap.

    Returns:
        The columns protocol, scorer, turn, metric, those of :class:`Difference`, and verdict: ``A better``,
        ``B better`` or ``not distinguishable`` at 5 % (p-value below it and interval without 0). The p-values are
        each test's own: looking at many rows, expect one in twenty to be below 5 % by chance.

    Raises:
        UsageError: the runs have no session in common.
    """
    grids = _shared(a, b)
    first, second = (dict(quantities(grid, measures, by_type=False)) for grid in grids)
    draws = _Draws(grids[0].sources, seed)
    rows = []
    for label in first.keys() & second.keys():
        mine, theirs = first[label], second[label]
        # A judge that was down in one of the runs leaves it without parts to compare.
        if label.metric in _COMPARED + _LOWER_IS_BETTER and len(mine.parts) == len(theirs.parts):
            found = _difference(mine, theirs, draws)
            verdict = _verdict(found, found.p_value, label.metric in _LOWER_IS_BETTER)
            rows.append((label.protocol, label.scorer, label.turn, label.metric, *found, verdict))
    columns = ["protocol", "scorer", "turn", "metric", *_DIFFERENCE, "verdict"]
    table = pd.DataFrame(rows, columns=columns).astype({"turn": "Int64"})
    return table.sort_values(["metric", "scorer", "protocol", "turn"], ignore_index=True)


def rank(runs: Mapping[str, Tables], scorer: str, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Several runs by free-running turn_success at the last turn that all of them have.

    Args:
        runs: name -> tables. scorer: the instruction-following scorer. seed: of the bootstrap.

    Returns:
        The ranking, best first: model, scorer, turn, value, low, high, n, n_missing, method, coverage, ranked and
        group. Models that share a letter of ``group`` are not distinguishable; one with a coverage below
        :data:`mteval.metrics.RANKED_FROM` is not ranked, stands at the end and has no letter.
        The pairs of ranked models: model_a, model_b, the columns of :class:`Difference`, p_adjusted (Holm over all
        pairs) and verdict.

    Raises:
        UsageError: two of the runs have no session in common, or a run has no turn_success of this scorer.
    """
    measures: dict[str, Measure] = {scorer: "instruction_following"}
    turn = min(int(run.turns["turn"].max()) for run in runs.values())
    rows = []
    for name, run in runs.items():
        metrics = compute(*run, measures)
        here = metrics[(metrics["metric"] == "turn_success") & (metrics["protocol"] == "free-running")]
        here = here[here["turn"] == turn]
        if here.empty:
            raise UsageError(f"run '{name}' has no free-running turn_success of scorer '{scorer}'")
        own = here[["value", "low", "high", "n", "n_missing", "method"]].iloc[0].tolist()
        coverage = coverage_of(metrics, "free-running")
        rows.append((name, scorer, turn, *own, coverage, coverage >= RANKED_FROM))
    columns = ["model", "scorer", "turn", "value", "low", "high", "n", "n_missing", "method", "coverage", "ranked"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.sort_values(["ranked", "value"], ascending=False, ignore_index=True, kind="stable")
    ranked = table.loc[table["ranked"], "model"].tolist()
    label = Label("free-running", scorer, turn, "all", "turn_success")
    pairs = _pairs({name: runs[name] for name in ranked}, label, measures, seed)
    apart = pairs["verdict"] != NOT_DISTINGUISHABLE
    differ = {
        frozenset(pair): bool(is_apart) for *pair, is_apart in zip(pairs.model_a, pairs.model_b, apart, strict=True)
    }
    letters = compact_letters(ranked, differ)
    table["group"] = [letters.get(name, "") for name in table["model"]]
    return table, pairs


def _pairs(runs: Mapping[str, Tables], label: Label, measures: Mapping[str, Measure], seed: int) -> pd.DataFrame:
    names, found = [], []
    for one, other in combinations(runs, 2):
        grids = _shared(runs[one], runs[other])
        mine, theirs = (dict(quantities(grid, measures, by_type=False))[label] for grid in grids)
        names.append((one, other))
        found.append(_difference(mine, theirs, _Draws(grids[0].sources, seed)))
    # A pair without data is not told apart, and still counts among the pairs.
    adjusted = holm([1.0 if math.isnan(difference.p_value) else difference.p_value for difference in found])
    rows = [
        (*pair, *difference, p, _verdict(difference, p, lower_is_better=False))
        for pair, difference, p in zip(names, found, adjusted, strict=True)
    ]
    return pd.DataFrame(rows, columns=["model_a", "model_b", *_DIFFERENCE, "p_adjusted", "verdict"])


def _shared(a: Tables, b: Tables) -> tuple[Grid, Grid]:
    """Both runs cut to the sessions and turns that both have."""
    common = set(a.turns["session"].unique()) & set(b.turns["session"].unique())
    if not common:
        raise UsageError("the runs have no session in common: compare runs of the same benchmark and split")
    last = min(int(run.turns["turn"].max()) for run in (a, b))
    first, second = (
        Grid(
            run.turns[run.turns["session"].isin(common) & (run.turns["turn"] <= last)],
            run.scores[run.scores["turn"] <= last],
        )
        for run in (a, b)
    )
    return first, second


class _Draws:
    """How often each source is drawn in each bootstrap sample: one set of draws for all metrics."""

    def __init__(self, sources: Sources, seed: int) -> None:
        self.sources = sources
        self.counts: Floats | None = None
        if sources.count <= BOOTSTRAP_UP_TO:
            even = np.full(sources.count, 1 / sources.count)
            counts = np.random.default_rng(seed).multinomial(sources.count, even, size=DRAWS)
            self.counts = counts.astype(np.float64)


def _difference(a: Quantity, b: Quantity, draws: _Draws) -> Difference:
    mine, theirs = a.paired(b)
    parts = len(a.parts)
    n = int(mine[parts:].max(axis=0).sum())
    if not mine[parts:].sum(axis=1).all():
        return Difference(math.nan, math.nan, math.nan, math.nan, math.nan, 0, math.nan, "none")
    value_a, value_b = (float(a.of_totals(columns.sum(axis=1))) for columns in (mine, theirs))
    difference = value_a - value_b
    verdicts = np.concatenate([mine, theirs])
    if parts == 1 and draws.sources.single and bool(((verdicts == 0) | (verdicts == 1)).all()):
        gains, losses = int((mine[0] > theirs[0]).sum()), int((mine[0] < theirs[0]).sum())
        low, high = tango(gains, losses, n)
        p_value, method = mcnemar(gains, losses), "tango, mcnemar"
    else:
        columns = draws.sources.sums(verdicts)
        low, high, p_value, method = _resampled(a, columns, difference, draws.counts)
    return Difference(value_a, value_b, difference, low, high, n, p_value, method)


def _resampled(
    quantity: Quantity, columns: Floats, difference: float, counts: Floats | None
) -> tuple[float, float, float, str]:
    """Interval, p-value and method from resampling the sources; ``columns`` [4 k, sources] are those of A, then B."""

    def values(totals: Floats) -> Floats:
        mine, theirs = np.split(totals, 2)
        return quantity.of_totals(mine) - quantity.of_totals(theirs)

    if counts is not None:
        drawn = values(columns @ counts.T)
        drawn = drawn[~np.isnan(drawn)]  # a draw without data for one of the parts
        low, high = (float(end) for end in np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2]))
        beyond = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        return low, high, min(1.0, 2 * beyond / (len(drawn) + 1)), "bootstrap"
    sources = columns.shape[1]
    error = math.sqrt(jackknife_variance(values(columns.sum(axis=1, keepdims=True) - columns)))
    half = student(sources) * error
    p_value = 2 * float(special.stdtr(sources - 1, -abs(difference) / error)) if error else float(difference == 0)
    return difference - half, difference + half, p_value, "t-jackknife"


def _verdict(found: Difference, p_value: float, lower_is_better: bool) -> str:
    if not (p_value < ALPHA and (found.low > 0 or found.high < 0)):
        return NOT_DISTINGUISHABLE
    return "A better" if (found.difference > 0) != lower_is_better else "B better"
