"""How far a judge can be trusted: its verdicts against labels, against itself, and the rates that follow from both.

The table of labelled turns has one row a turn: session, source_id, model, protocol, turn, task_type, judged (1 or 0,
the judge's verdict), label (1 or 0; NaN where nobody labelled it).

=================== =============================================================================================
measure             formula, over labelled turns
=================== =============================================================================================
``agreement``       share of turns whose verdict is the label
``kappa``           (agreement - chance) / (1 - chance), chance = p_j p_l + (1 - p_j)(1 - p_l) (Cohen 1960)
``sensitivity``     share of verdicts 1 among labels 1
``specificity``     share of verdicts 0 among labels 0
``bias``            mean verdict - mean label
``disagreement``    share of pairs of votes on one turn that differ
``noise``           q of a judge that flips each verdict with probability q: disagreement = 2 q (1 - q)
``vote_deviation``  standard deviation between votes on one turn, of the score in its own unit
=================== =============================================================================================

Intervals are at 95 % with the source images as the independent unit, as everywhere (:mod:`mteval.estimators`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mteval.correction import prediction_powered, rogan_gladen
from mteval.estimators import Difference, Part, Quantity, Rate, Sample, Sources, jackknife_variance, ratio
from mteval.power import design_effect
from mteval.stats import Estimate, Floats, Limits, student

COLUMNS = ("group", "of", "measure", "value", "low", "high", "n", "method")
GROUPS = ("task_type", "turn", "model", "protocol")


class Kappa(Quantity):
    """Cohen's kappa; the ratios are agreement, and the shares of 1 of judge and labels."""

    def formula(self, ratios: Floats) -> Floats:
        agreement, judged, label = ratios
        chance = judged * label + (1 - judged) * (1 - label)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((agreement - chance) / (1 - chance))

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        return _around(value, self.formula(sample.left_out), sample, (-1.0, 1.0))


class Noise(Quantity):
    """The probability that a verdict is flipped, from the one ratio ``disagreement``."""

    def formula(self, ratios: Floats) -> Floats:
        return np.asarray((1 - np.sqrt(np.maximum(1 - 2 * ratios[0], 0))) / 2)

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        (low, high), method = Rate(self.parts).limits(float(sample.ratios[0]), sample)
        ends = self.formula(np.array([[low, high]]))
        return (float(ends[0]), float(ends[1])), method


class Deviation(Quantity):
    """The root of the one ratio, a mean variance."""

    def formula(self, ratios: Floats) -> Floats:
        return np.asarray(np.sqrt(np.maximum(ratios[0], 0)))

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        return _around(value, self.formula(sample.left_out), sample, (0.0, math.inf))


def _around(value: float, replicates: Floats, sample: Sample, ends: Limits) -> tuple[Limits, str]:
    half = student(len(sample)) * math.sqrt(jackknife_variance(replicates))
    return (max(value - half, ends[0]), min(value + half, ends[1])), "t-jackknife"


def against_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Every measure against the labels, over all turns and by :data:`GROUPS`.

    Args:
        table: see the module's docstring; rows without a label do not count.

    Returns:
        The columns :data:`COLUMNS`; ``group`` is ``all`` or one of :data:`GROUPS`, ``of`` which one of it.
    """
    known = table[table["label"].notna()]
    rows = [("all", "", *one) for one in _measures(known)]
    for group in GROUPS:
        for of, part in known.groupby(group, sort=True, observed=True):
            rows += [(group, str(of), *one) for one in _measures(part)]
    return _frame(rows)


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """Counts by task type: task_type, both (verdict and label 1), judge_only, label_only, neither."""
    known = table[table["label"].notna()]
    judged, label = known["judged"] == 1, known["label"] == 1
    cells = {"both": judged & label, "judge_only": judged & ~label, "label_only": ~judged & label}
    cells["neither"] = ~judged & ~label
    counts = pd.DataFrame({name: cell.groupby(known["task_type"], observed=True).sum() for name, cell in cells.items()})
    return counts.reset_index()


def _measures(known: pd.DataFrame) -> Iterator[tuple[str, Estimate]]:
    sessions = known.groupby("session", sort=True, observed=True)
    sources = _sources(sessions["source_id"].first())

    def part(values: pd.Series[float], among: pd.Series[bool] | None = None) -> Part:
        among = among if among is not None else values.notna()
        one = known["session"]
        return _part((values * among).groupby(one, observed=True).sum(), among.groupby(one, observed=True).sum())

    judged, label = known["judged"].astype(float), known["label"].astype(float)
    agree = (judged == label).astype(float)
    yield "agreement", Rate((part(agree),)).estimate(sources)
    yield "kappa", Kappa((part(agree), part(judged), part(label))).estimate(sources)
    yield "sensitivity", Rate((part(judged, label == 1),)).estimate(sources)
    yield "specificity", Rate((part(1 - judged, label == 0),)).estimate(sources)
    over, under = ((judged > label).astype(float), (judged < label).astype(float))
    yield "bias", Difference((part(over), part(under))).estimate(sources)


def against_itself(votes: Floats, verdicts: Floats, source_ids: Sequence[str]) -> pd.DataFrame:
    """Votes of one judge on the same turns.

    Args:
        votes: [turns, votes], scores. verdicts: the same as 1 or 0; empty ([turns, 0]) where there are no verdicts.
        source_ids: [turns].

    Returns:
        The columns :data:`COLUMNS`.
    """
    sources = _sources(pd.Series(list(source_ids)))
    ones = pd.Series(np.ones(len(votes)))
    rows = [
        ("all", "", "vote_deviation", Deviation((_part(pd.Series(votes.var(1, ddof=1)), ones),)).estimate(sources)),
    ]
    if verdicts.shape[1]:
        count = verdicts.shape[1]
        done = verdicts.sum(1)
        differ = pd.Series(done * (count - done) / (count * (count - 1) / 2))
        part = _part(differ, ones)
        rows.append(("all", "", "disagreement", Rate((part,)).estimate(sources)))
        rows.append(("all", "", "noise", Noise((part,)).estimate(sources)))
    return _frame(rows)


class Corrected(NamedTuple):
    """One rate, as judged and as corrected.

    Attributes:
        labelled: of the labelled turns alone. raw: of the verdicts.
        rogan_gladen: from the raw rate and the sensitivity and specificity on the labelled turns.
        prediction_powered: from the verdicts on all turns and the labels on some.
    """

    labelled: Estimate
    raw: Estimate
    rogan_gladen: Estimate
    prediction_powered: Estimate


def corrected(table: pd.DataFrame, labelled: pd.DataFrame | None = None) -> Corrected:
    """The success rate over the turns of ``table``.

    Args:
        labelled: other turns of the same kind whose labels tell the judge's errors; None = those of ``table``.
    """
    pool = table if labelled is None else labelled
    known = pool[pool["label"].notna()]
    judged, label = known["judged"].to_numpy(float), known["label"].to_numpy(float)
    unlabelled = table[table["label"].isna()]
    everything = table["judged"].to_numpy(float)
    sensitivity = (int(judged[label == 1].sum()), int((label == 1).sum()))
    specificity = (int((1 - judged[label == 0]).sum()), int((label == 0).sum()))
    mine = table[table["label"].notna()]
    return Corrected(
        labelled=rate(mine["label"].to_numpy(float), mine["source_id"]),
        raw=rate(everything, table["source_id"]),
        rogan_gladen=rogan_gladen(
            int(everything.sum()),
            len(everything),
            sensitivity,
            specificity,
            (
                _effect(table["judged"], table["source_id"]),
                _effect(known["judged"][label == 1], known["source_id"][label == 1]),
                _effect(known["judged"][label == 0], known["source_id"][label == 0]),
            ),
        ),
        prediction_powered=prediction_powered(
            unlabelled["judged"].to_numpy(float),
            mine["judged"].to_numpy(float),
            mine["label"].to_numpy(float),
            unlabelled["source_id"].tolist(),
            mine["source_id"].tolist(),
        ),
    )


def _effect(judged: pd.Series[float], source_ids: pd.Series[str]) -> float:
    """How many verdicts of one source count as one."""
    return design_effect(np.asarray(judged, np.float64), _sources(source_ids))


def rate(values: Floats, source_ids: pd.Series[Any]) -> Estimate:
    """The mean of values of 0 or 1."""
    return Rate((_part(pd.Series(values), pd.Series(np.ones(len(values)))),)).estimate(_sources(source_ids))


def _sources(source_ids: pd.Series[Any]) -> Sources:
    codes, names = pd.factorize(source_ids, sort=True)
    return Sources(codes.astype(np.int64), len(names))


def _part(numerator: pd.Series[Any], denominator: pd.Series[Any]) -> Part:
    above, below = (np.asarray(values, np.float64) for values in (numerator, denominator))
    value = ratio(float(above.sum()), float(below.sum()))
    return Part(above, below, np.zeros(len(above), np.int64), value, value)


def _frame(rows: Sequence[tuple[str, str, str, Estimate]]) -> pd.DataFrame:
    cells = [(group, of, measure, e.value, e.low, e.high, e.n, e.method) for group, of, measure, e in rows]
    return pd.DataFrame(cells, columns=list(COLUMNS))
