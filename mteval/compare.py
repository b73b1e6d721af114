"""Runs against each other, on the sessions they share.

A metric that is one verdict a session (one repeat, every source one session) is compared by Tango's interval of the
paired difference and McNemar's exact test. Everything else is compared by the paired bootstrap: sources are drawn
again, the same draw for both runs; below :data:`BOOTSTRAP_FROM` and above :data:`BOOTSTRAP_UP_TO` sources by the
variance from leaving out one source and Student's t. A session counts only where both runs have data; ``least`` and
``largest`` say what the difference may be over all sessions that should have it.
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
from mteval.metrics import PAIRED, RANKED_FROM, Label, Ranges, compute, coverage_of, quantities
from mteval.registry import nearest
from mteval.scorers.base import Measure
from mteval.stats import ALPHA, Floats, compact_letters, holm, mcnemar, student, tango
from mteval.tables import Grid

BOOTSTRAP_FROM = 50
"""The smallest number of sources that is resampled: with ten, the bootstrap tells equal models apart in 11 % of the
cases, Student's t in 5 %."""
BOOTSTRAP_UP_TO = 1000
"""The largest number of sources that is resampled; above it the analytic interval has the same coverage."""

DRAWS = 4000
NOT_DISTINGUISHABLE = "not distinguishable"


class Compared(NamedTuple):
    """How runs are compared by a metric.

    Attributes:
        made_of: what the scorers measure whose scores it is made of.
        lower_is_better: else higher is. protocol: whose value ranks.
        word: ``higher`` where only the scorer knows which end is good (a quality, or a distance).
    """

    made_of: tuple[Measure, ...]
    lower_is_better: bool = False
    protocol: str = "free-running"
    word: str = "better"


_FOLLOWING, _CONSISTENCY = Compared(("instruction_following",)), Compared(("content_consistency",))
_BIAS = Compared(_FOLLOWING.made_of, lower_is_better=True, protocol=PAIRED)

COMPARED: Mapping[str, Compared] = {
    "turn_success": _FOLLOWING,
    "marginal_success": _FOLLOWING,
    "subinstruction_success": _FOLLOWING._replace(protocol="single-shot"),
    "content_consistency": _CONSISTENCY,
    "content_consistency_object": _CONSISTENCY,
    "content_consistency_background": _CONSISTENCY,
    "content_consistency_step": _CONSISTENCY,
    "overall": Compared(("instruction_following", "content_consistency")),
    "exposure_bias": _BIAS,
    "exposure_bias_drift": _BIAS,
    "exposure_bias_cascade": _BIAS,
    "visual_quality": Compared(("visual_quality",), word="higher"),
    "visual_quality_delta": Compared(("visual_quality",), lower_is_better=True),
    "survival": Compared(("survival",)),
    "collapse": Compared(("collapse",), lower_is_better=True),
    "trajectory_score": Compared(("trajectory",)),
    "reference_psnr": Compared(("reference_psnr",)),
}
"""The metrics by which runs can be compared and ranked."""

_DIFFERENCE = ("value_a", "value_b", "difference", "low", "high", "n", "p_value", "method")
_OWN = ("value", "low", "high", "n", "n_missing", "method", "worst", "best")
_MISSING = ("n_missing", "least", "largest")


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
        n_missing: how many sessions (or turns) should have data in both runs and have not.
        least, largest: the difference over all of them if what is missing went against A, or against B; NaN where
            nothing is missing, or where a value has no end.
    """

    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    n: int
    p_value: float
    method: str
    n_missing: int
    least: float
    largest: float


def compare(
    a: Tables, b: Tables, measures: Mapping[str, Measure], ranges: Ranges | None = None, *, seed: int = 0
) -> pd.DataFrame:
    """Every metric of two runs at every turn that both have, over all task types.

    Args:
        measures: scorer -> what it measures, of the scorers that both runs have. seed: of the bootstrap.
        ranges: the ends of their values, for ``least`` and ``largest``.

    Returns:
        The columns protocol, scorer, turn, metric, those of :class:`Difference`, and verdict: ``A better``,
        ``B better`` (visual_quality: ``higher``) or ``not distinguishable`` at 5 % (p-value below it and interval
        without 0). The p-values are each test's own: of many rows, expect one in twenty to be below 5 % by chance.

    Raises:
        UsageError: the runs have no session in common.
    """
    grids = _shared(a, b)
    first, second = (dict(quantities(grid, measures, by_type=False, ranges=ranges)) for grid in grids)
    draws = _Draws(grids[0].sources, seed)
    rows = []
    for label in first.keys() & second.keys():
        mine, theirs = first[label], second[label]
        # A judge that was down in one of the runs leaves it without parts to compare.
        if label.metric in COMPARED and len(mine.parts) == len(theirs.parts):
            found = _difference(mine, theirs, draws)
            verdict = _verdict(found, found.p_value, COMPARED[label.metric])
            rows.append((label.protocol, label.scorer, label.turn, label.metric, *found, verdict))
    columns = ["protocol", "scorer", "turn", "metric", *_DIFFERENCE, *_MISSING, "verdict"]
    table = pd.DataFrame(rows, columns=columns).astype({"turn": "Int64"})
    return table.sort_values(["metric", "scorer", "protocol", "turn"], ignore_index=True)


def rank(
    runs: Mapping[str, Tables], measures: Mapping[str, Measure], metric: str = "turn_success", *, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Several runs by one metric at the last turn that all of them have.

    Args:
        runs: name -> tables. measures: scorer -> what it measures, of the scorers that ``metric`` is made of (the first
            of each measure counts). metric: one of :data:`COMPARED`. seed: of the bootstrap.

    Returns:
        The ranking, best first: model, scorer, turn (missing where the metric has none), value, low, high, n,
        n_missing, method, worst, best, coverage, ranked and group. Models that share a letter of ``group`` are not
        distinguishable; one without a value, or with a coverage below :data:`mteval.metrics.RANKED_FROM`, is not
        ranked, stands at the end and has no letter.
        The pairs of ranked models: model_a, model_b, the columns of :class:`Difference`, p_adjusted (Holm over all
        pairs) and verdict.

    Raises:
        UsageError: an unknown metric; two of the runs have no session in common, or a run has no such number.
    """
    if metric not in COMPARED:
        raise UsageError(f"runs cannot be ranked by '{metric}': {nearest(metric, list(COMPARED))}")
    how = COMPARED[metric]
    scorers: dict[str, Measure] = {}
    for measure in how.made_of:
        name = next((name for name, of in measures.items() if of == measure), None)
        if name is None:
            raise UsageError(f"{metric} is made of scores of {measure}, and the runs have no such scorer")
        scorers[name] = measure
    last = min(int(run.turns["turn"].max()) for run in runs.values())
    label = Label(how.protocol, "+".join(scorers), None if metric == "trajectory_score" else last, "all", metric)
    rows = []
    for name, run in runs.items():
        table = compute(*run, scorers)
        turns = table["turn"].isna() if label.turn is None else table["turn"] == last
        here = table[(table["metric"] == metric) & (table["protocol"] == how.protocol) & turns]
        here = here[here["task_type"] == "all"]
        if here.empty:
            raise UsageError(f"run '{name}' has no {how.protocol} {metric} of scorer '{label.scorer}'")
        own = here[list(_OWN)].iloc[0].tolist()
        coverage = coverage_of(table, "free-running" if how.protocol == PAIRED else how.protocol)
        ranked = coverage >= RANKED_FROM and not math.isnan(own[0])
        rows.append((name, label.scorer, label.turn, *own, coverage, ranked))
    columns = ["model", "scorer", "turn", *_OWN, "coverage", "ranked"]
    table = pd.DataFrame(rows, columns=columns).astype({"turn": "Int64"})
    order = [False, how.lower_is_better]
    table = table.sort_values(["ranked", "value"], ascending=order, ignore_index=True, kind="stable")
    names = table.loc[table["ranked"], "model"].tolist()
    pairs = _pairs({name: runs[name] for name in names}, label, scorers, seed)
    apart = pairs["verdict"] != NOT_DISTINGUISHABLE
    differ = {
        frozenset(pair): bool(is_apart) for *pair, is_apart in zip(pairs.model_a, pairs.model_b, apart, strict=True)
    }
    letters = compact_letters(names, differ)
    table["group"] = [letters.get(name, "") for name in table["model"]]
    return table, pairs


def paired_values(
    a: Tables, b: Tables, label: Label, measures: Mapping[str, Measure]
) -> tuple[Floats, Floats, Sources]:
    """One value a session of each run, on the shared sessions that both have data for: [sessions] twice.

    Args:
        label: of a metric that is one ratio with one unit a session, for example turn_success.

    Raises:
        UsageError: no session in common, or one of the runs has no such number.
    """
    grids = _shared(a, b)
    mine, theirs = (_quantity(grid, label, measures) for grid in grids)
    values_a, values_b = mine.paired(theirs)
    both = values_a[1] > 0
    codes = np.unique(grids[0].sources.codes[both], return_inverse=True)[1]
    return values_a[0, both], values_b[0, both], Sources(codes, int(codes.max(initial=-1)) + 1)


def _pairs(runs: Mapping[str, Tables], label: Label, measures: Mapping[str, Measure], seed: int) -> pd.DataFrame:
    names, found = [], []
    for one, other in combinations(runs, 2):
        grids = _shared(runs[one], runs[other])
        mine, theirs = (_quantity(grid, label, measures) for grid in grids)
        names.append((one, other))
        found.append(_difference(mine, theirs, _Draws(grids[0].sources, seed)))
    # A pair without data is not told apart, and still counts among the pairs.
    adjusted = holm([1.0 if math.isnan(difference.p_value) else difference.p_value for difference in found])
    rows = [
        (*pair, *difference, p, _verdict(difference, p, COMPARED[label.metric]))
        for pair, difference, p in zip(names, found, adjusted, strict=True)
    ]
    return pd.DataFrame(rows, columns=["model_a", "model_b", *_DIFFERENCE, *_MISSING, "p_adjusted", "verdict"])


def _quantity(grid: Grid, label: Label, measures: Mapping[str, Measure]) -> Quantity:
    for found, quantity in quantities(grid, measures, by_type=False):
        if found == label:
            return quantity
    raise UsageError(f"a run has no {label.protocol} {label.metric} of scorer '{label.scorer}' at turn {label.turn}")


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
        if BOOTSTRAP_FROM <= sources.count <= BOOTSTRAP_UP_TO:
            even = np.full(sources.count, 1 / sources.count)
            counts = np.random.default_rng(seed).multinomial(sources.count, even, size=DRAWS)
            self.counts = counts.astype(np.float64)


def _difference(a: Quantity, b: Quantity, draws: _Draws) -> Difference:
    mine, theirs = a.paired(b)
    parts = len(a.parts)
    n = int(mine[parts:].max(axis=0).sum())
    missing = _missing(a, b)
    if not mine[parts:].sum(axis=1).all():
        return Difference(math.nan, math.nan, math.nan, math.nan, math.nan, 0, math.nan, "none", *missing)
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
    return Difference(value_a, value_b, difference, low, high, n, p_value, method, *missing)


def _missing(a: Quantity, b: Quantity) -> tuple[int, float, float]:
    """How much is missing in one of them at least, and the least and largest difference that it allows."""
    n_missing = int(np.max([part.missing for part in (*a.parts, *b.parts)], axis=0).sum())
    if not n_missing:
        return 0, math.nan, math.nan
    (least_a, largest_a), (least_b, largest_b) = (sorted(quantity.bounds()) for quantity in (a, b))
    return n_missing, least_a - largest_b, largest_a - least_b


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
    columns = columns[:, columns.any(axis=0)]  # the sources that have data
    sources = columns.shape[1]
    error = math.sqrt(jackknife_variance(values(columns.sum(axis=1, keepdims=True) - columns)))
    half = student(sources) * error
    if error:
        p_value = 2 * float(special.stdtr(sources - 1, -abs(difference) / error))
    else:  # every source shows the same difference: the sign test
        p_value = min(1.0, 2.0 ** (1 - sources)) if difference else 1.0
    return difference - half, difference + half, p_value, "t-jackknife"


def _verdict(found: Difference, p_value: float, how: Compared) -> str:
    if not (p_value < ALPHA and (found.low > 0 or found.high < 0)):
        return NOT_DISTINGUISHABLE
    return f"{'A' if (found.difference > 0) != how.lower_is_better else 'B'} {how.word}"
