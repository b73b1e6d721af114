"""Statistics of few numbers: intervals, tests, corrections. Pure functions; nothing here knows what is measured.

Every interval is one of these, and the name stands in :attr:`Estimate.method`:

==================== ===============================================================================================
method               what it is
==================== ===============================================================================================
``wilson``           Wilson's score interval of a plain proportion: every source has one session (Wilson 1927)
``wilson-jackknife`` the same at the effective sample size p(1-p) / variance, with the variance from leaving out one
                     source at a time and Student's t over the sources: any mean of values in [0, 1] (the idea of
                     Korn & Graubard 1998, with Wilson's interval as in Dean & Pagano 2015)
``tango``            Tango's score interval of a mean of values in {-1, 0, 1}, such as the difference of two paired
                     proportions (Tango 1998): it keeps its width when hardly any pair differs
``tango-jackknife``  the same at the effective sample size
``mover-jackknife``  difference of two rates from the limits of each and their correlation (Zou & Donner 2008;
                     Newcombe's method 10 is the case of two paired proportions)
``t-jackknife``      Student's t with the variance from leaving out one source: values of no fixed range
``t-folded``         the same for the size of a difference: the absolute values of its interval
``bootstrap``        percentiles over resampled sources, the same draw for both runs (:mod:`mteval.compare`)
``lang-reiczigel``   a rate that an imperfect judge counted, corrected (:mod:`mteval.correction`)
``ppi++``            a rate from few labels and many judgements (:mod:`mteval.correction`)
``chi-squared``      standard deviation between a few repeats that are taken as normal
``shared``           no interval: both protocols hold the same image by construction
``count``            no interval: counted, not estimated
``none``             no data
==================== ===============================================================================================

Score intervals are preferred to the percentile bootstrap because they hold their coverage where the bootstrap loses
it: rates near 0 or 1, few discordant pairs, few sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.optimize import brentq

Floats = npt.NDArray[np.float64]
Limits = tuple[float, float]

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
NORMAL = float(special.ndtri(1 - ALPHA / 2))
"""The two-sided 95 % quantile of the normal distribution, 1.96."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that leaves the system.

    Attributes:
        value: NaN where there is no data, never 0.
        low, high: the ends of the 95 % interval, NaN where there is none.
        n: how many sessions (or judged turns, where a metric pools them) the value stands on.
        n_missing: in how many a value should be and is not, in one repeat at least.
        method: see the module's docstring.
        worst, best: the value if all that is missing were failures, or successes; None when nothing is missing.
    """

    value: float
    low: float
    high: float
    n: int
    n_missing: int
    method: str
    worst: float | None = None
    best: float | None = None


def student(sources: int) -> float:
    """The two-sided 95 % quantile of Student's t with ``sources - 1`` degrees of freedom; NaN for one source."""
    return float(special.stdtrit(sources - 1, 1 - ALPHA / 2)) if sources > 1 else math.nan


def wilson(p: float, n: float, quantile: float = NORMAL) -> Limits:
    """Wilson's score interval of a proportion.

    Args:
        p: the proportion, in [0, 1]. n: the (effective) sample size, > 0. quantile: of the normal or Student's t;
            NaN (one source says nothing of the others) gives no interval.

    Source: Wilson (1927), JASA 22, 209-212.
    """
    if math.isnan(quantile):
        return math.nan, math.nan
    squared = quantile**2
    centre = (p + squared / (2 * n)) / (1 + squared / n)
    half = quantile / (1 + squared / n) * math.sqrt(p * (1 - p) / n + squared / (4 * n**2))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def tango(gains: float, losses: float, n: float, quantile: float = NORMAL) -> Limits:
    """Tango's score interval of (gains - losses) / n.

    Args:
        gains, losses: how many of the ``n`` values are +1 and -1 (the discordant pairs of two paired proportions);
            fractions are allowed. quantile: of the normal or Student's t.

    Source: Tango (1998), Statistics in Medicine 17, 891-908; the restricted estimate of its equation 11.
    """
    if math.isnan(quantile):
        return math.nan, math.nan
    difference = (gains - losses) / n
    return -_tango_upper(losses, gains, n, -difference, quantile), _tango_upper(gains, losses, n, difference, quantile)


def _tango_upper(gains: float, losses: float, n: float, difference: float, quantile: float) -> float:
    """Where the score test stops to reject a true difference above the one seen."""

    def excess(delta: float) -> float:
        b = -gains - losses + (2 * n - gains + losses) * delta
        c = -losses * delta * (1 - delta)
        lost = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)  # restricted estimate of the share of losses
        return (gains - losses - n * delta) ** 2 - quantile**2 * n * (2 * lost + delta * (1 - delta))

    start = difference + 1e-9  # at the difference itself the excess is 0 when no pair differs, which is not the root
    if start >= 1 or excess(start) >= 0:
        return min(difference, 1.0)
    return float(brentq(excess, start, 1.0, xtol=1e-12))


def mover(first: float, first_limits: Limits, second: float, second_limits: Limits, correlation: float) -> Limits:
    """Interval of ``first - second`` from the interval of each (method of variance estimates recovery).

    Source: Zou & Donner (2008), Statistics in Medicine 27, 1693-1702.
    """

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0))

    difference = first - second
    return (
        difference - reach(first - first_limits[0], second_limits[1] - second),
        difference + reach(first_limits[1] - first, second - second_limits[0]),
    )


def spread(values: Sequence[float]) -> tuple[float, Limits]:
    """Standard deviation of two or more numbers, and its chi-squared interval."""
    freedom = len(values) - 1
    deviation = float(np.std(values, ddof=1))
    ends = special.chdtri(freedom, [ALPHA / 2, 1 - ALPHA / 2])  # chdtri takes the upper tail
    low, high = (deviation * math.sqrt(freedom / end) for end in ends)
    return deviation, (low, high)


def mcnemar(gains: int, losses: int) -> float:
    """McNemar's exact two-sided p-value for paired verdicts: the sign test on the discordant pairs."""
    if gains + losses == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(gains, losses), gains + losses, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    count = len(p_values)
    adjusted = [0.0] * count
    highest = 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def compact_letters(names: Sequence[str], differ: Mapping[frozenset[str], bool]) -> dict[str, str]:
    """Tie groups: two names share a letter exactly when they do not differ.

    Args:
        names: best first, so that the letter ``a`` is with the best.
        differ: for every pair of names, whether it is told apart.

    Source: the insert-and-absorb algorithm of Piepho (2004), JCGS 13, 456-466.
    """
    groups = [frozenset(names)]
    for pair, apart in differ.items():
        if not apart:
            continue
        split = [part for group in groups for part in ([group - {name} for name in pair] if pair <= group else [group])]
        groups = [
            group
            for index, group in enumerate(split)
            if not any(group < other or (group == other and index > where) for where, other in enumerate(split))
        ]
    order = {name: index for index, name in enumerate(names)}
    groups.sort(key=lambda group: sorted(order[name] for name in group))
    return {name: "".join(_letter(i) for i, group in enumerate(groups) if name in group) for name in names}


def _letter(index: int) -> str:
    """a..z, then (27), (28), ..."""
    return chr(ord("a") + index) if index < 26 else f"({index + 1})"
