"""A rate that an imperfect judge counted, corrected by what is known of the judge. Pure functions.

Two ways, for two kinds of knowledge:

- :func:`rogan_gladen`: the judge's hits and misses on labelled examples from anywhere, if it is wrong as often there as
  here. Strong where the judge errs at a known rate; biased where its errors depend on the model that is judged.
- :func:`prediction_powered`: labels on a random part of the very turns that are judged. Never biased, whatever the
  judge does; a good judge only makes the interval narrower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mteval.estimators import NOTHING, Ints
from mteval.stats import NORMAL, Estimate, Floats, student, wilson

_PSEUDO = 0.5
"""How much each of the two made-up labels of :func:`prediction_powered` weighs."""


def rogan_gladen(
    positives: int,
    n: int,
    sensitivity: tuple[int, int],
    specificity: tuple[int, int],
    effects: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Estimate:
    """The true rate behind ``positives`` of ``n`` verdicts of a judge: p = (q + Sp - 1) / (Se + Sp - 1), within [0, 1].

    The interval carries the uncertainty of all three counts: Lang & Reiczigel (2014), Preventive Veterinary Medicine
    113, 13-22, whose counts are moved towards one half and whose centre is corrected for the skewness of the ratio.

    Args:
        positives, n: what the judge said where the truth is not known.
        sensitivity: how many of how many that are truly positive it called positive.
        specificity: how many of how many that are truly negative it called negative.
        effects: the design effect of each of the three (:func:`mteval.power.design_effect`), where several verdicts are
            of one start image; they count as so many times fewer.

    Returns:
        NaN with method ``none`` where one of the three has no data, or where Se + Sp <= 1: such a judge says nothing.

    Source of the value: Rogan & Gladen (1978), American Journal of Epidemiology 107, 71-76.
    """
    (hits, of_positives), (rejections, of_negatives) = sensitivity, specificity
    if not (n and of_positives and of_negatives):
        return NOTHING
    if hits * of_negatives + rejections * of_positives <= of_positives * of_negatives:
        return replace(NOTHING, n=n)
    informative = hits / of_positives + rejections / of_negatives - 1
    value = min(1.0, max(0.0, (positives / n + rejections / of_negatives - 1) / informative))
    drawn, drawn_positive, drawn_negative = (n / effects[0], of_positives / effects[1], of_negatives / effects[2])
    q_n, se_n, sp_n = drawn + NORMAL**2, drawn_positive + 2, drawn_negative + 2
    q = (drawn * positives / n + NORMAL**2 / 2) / q_n
    se = (drawn_positive * hits / of_positives + 1) / se_n
    sp = (drawn_negative * rejections / of_negatives + 1) / sp_n
    if se + sp <= 1:  # by so few labels the judge may as well say nothing
        return Estimate(value, 0.0, 1.0, n, 0, "lang-reiczigel")
    p = (q + sp - 1) / (se + sp - 1)
    misses, false_alarms = p * se * (1 - se) / se_n, (1 - p) * sp * (1 - sp) / sp_n
    centre = p + 2 * NORMAL**2 * (misses - false_alarms)
    variance = q * (1 - q) / q_n + p * misses + (1 - p) * false_alarms
    half = NORMAL * math.sqrt(variance) / (se + sp - 1)
    low, high = min(1.0, max(0.0, centre - half)), max(0.0, min(1.0, centre + half))
    return Estimate(value, min(low, value), max(high, value), n, 0, "lang-reiczigel")


def prediction_powered(
    judged: npt.ArrayLike,
    labelled_judged: npt.ArrayLike,
    labels: npt.ArrayLike,
    judged_sources: Sequence[str] | None = None,
    label_sources: Sequence[str] | None = None,
) -> Estimate:
    """The mean label of everything, from a random part that is labelled and the judge's values on all.

    value = mean(labels) + lambda (mean(judged) - mean(labelled_judged)), with the lambda in [0, 1] of least variance:
    0 leaves the judge out, 1 trusts it but for its mean error.

    The interval is Wilson's at the effective sample size, with Student's t over the labelled sources. Two made-up
    labels of half a label's weight, one of either error, stand in its variance and not in its value: a judge that
    agrees with 30 labels is not known to be perfect.

    Args:
        judged: [N], the judge's values of what is not labelled, in [0, 1]. labelled_judged: [n], those of what is.
        labels: [n], the truth, in [0, 1].
        judged_sources, label_sources: [N] and [n], start images; values of one source are one cluster. None = each
            value stands alone.

    Returns:
        ``n`` counts the labels. NaN with method ``none`` without a label; no interval for labels of one source.

    Raises:
        ValueError: the lengths do not fit, or the sources are given for one side only.

    Source: PPI++ of Angelopoulos, Duchi & Zrnic (2023), arXiv 2311.01453, with its power tuning for a mean; the
    interval and the clusters are ours.
    """
    rest, seen, truth = (np.asarray(values, np.float64) for values in (judged, labelled_judged, labels))
    if len(seen) != len(truth):
        raise ValueError(f"{len(truth)} labels for {len(seen)} labelled judgements")
    if not len(truth):
        return NOTHING
    codes, clusters = _codes(judged_sources, label_sources, len(rest), len(truth))
    weights = np.append(np.ones(len(truth)), [_PSEUDO, _PSEUDO])
    more_truth, more_seen = np.append(truth, [1.0, 0.0]), np.append(seen, [0.0, 1.0])
    trust = _trust(more_truth, more_seen, weights, rest)
    moved = trust * (float(rest.mean()) - float(seen.mean())) if trust else 0.0
    value = min(1.0, max(0.0, float(truth.mean()) + moved))
    variance = _variance(more_truth - trust * more_seen, weights, trust * rest, codes, clusters)
    size = value * (1 - value) / variance if 0 < value < 1 else clusters
    low, high = wilson(value, size, student(clusters))
    return Estimate(value, low, high, len(truth), 0, "ppi++")


def _codes(
    judged_sources: Sequence[str] | None, label_sources: Sequence[str] | None, judged: int, labels: int
) -> tuple[Ints, int]:
    """The number of the source of each label, then of each other value; and how many sources have labels."""
    if judged_sources is None and label_sources is None:
        return np.arange(labels + judged), labels
    if judged_sources is None or label_sources is None:
        raise ValueError("sources are given for one side only")
    if (len(judged_sources), len(label_sources)) != (judged, labels):
        raise ValueError("there is not one source for each value")
    codes = np.unique([*label_sources, *judged_sources], return_inverse=True)[1]
    return codes, len(np.unique(codes[:labels]))


def _trust(truth: Floats, seen: Floats, weights: Floats, rest: Floats) -> float:
    """The lambda of least variance: Cov(truth, judge) / (Var(judge) (1 + n / N)), within [0, 1]."""
    spread = float(np.concatenate([rest, seen]).var())
    if not len(rest) or not spread:
        return 0.0
    covariance = float(np.cov(truth, seen, aweights=weights, ddof=0)[0, 1])
    return min(1.0, max(0.0, covariance / (spread * (1 + float(weights.sum()) / len(rest)))))


def _variance(residuals: Floats, weights: Floats, rest: Floats, codes: Ints, clusters: int) -> float:
    """Of the mean residual (the last two are made up) plus the mean of ``rest``, over the clusters that both share."""
    labels = len(codes) - len(rest)
    errors: Floats = (residuals - np.average(residuals, weights=weights)) / weights.sum()
    errors *= math.sqrt((clusters + 1) / clusters)
    others = (rest - rest.mean()) / len(rest) if len(rest) else rest
    by_source = np.bincount(codes, np.concatenate([errors[:labels], others]))
    return float((by_source**2).sum() + (weights[labels:] * errors[labels:] ** 2).sum())
