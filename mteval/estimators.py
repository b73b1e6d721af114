"""From what every session contributes to an :class:`~mteval.stats.Estimate`.

Every metric is a formula over a few ratios of sums over sessions::

    ratio_j = sum_i numerator_ij / sum_i denominator_ij          value = formula(ratio_1 .. ratio_k)

so one description serves its value, its bounds with missing data, its interval from leaving out one source at a time,
and the paired bootstrap of two runs. Sources (start images) are the independent unit: sessions of one source are
summed first.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from mteval.stats import Estimate, Floats, Limits, mover, student, tango, wilson

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

NOTHING = Estimate(math.nan, math.nan, math.nan, 0, 0, "none")


@dataclass(frozen=True)
class Sources:
    """Which sessions share a start image.

    Attributes:
        codes: [sessions], the number of each session's source, 0 <= code < count.
        count: how many sources there are.
    """

    codes: Ints
    count: int

    @cached_property
    def single(self) -> bool:
        """Whether every source has one session."""
        return self.count == len(self.codes)

    def sums(self, values: Floats) -> Floats:
        """[k, sessions] -> [k, sources]."""
        if self.single:
            return values
        return np.stack([np.bincount(self.codes, row, self.count) for row in values])


@dataclass(frozen=True)
class Part:
    """One ratio: what each session adds to it.

    Attributes:
        numerator, denominator: [sessions]; a session without data has 0 in both.
        missing: [sessions], how many of its units should have a value in every repeat and have not.
        worst, best: the ratio if all that is missing were failures, or successes; where nothing is missing, the ratio.
    """

    numerator: Floats
    denominator: Floats
    missing: Ints
    worst: float
    best: float


def ratio(numerator: float, denominator: float) -> float:
    """NaN instead of a division by zero."""
    return numerator / denominator if denominator else math.nan


@dataclass(frozen=True)
class Quantity(ABC):
    """A metric at one turn: its parts, and what a subclass says of formula and interval."""

    parts: tuple[Part, ...]

    @abstractmethod
    def formula(self, ratios: Floats) -> Floats:
        """[k, ...] -> [...]."""

    @abstractmethod
    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        """The 95 % interval and the name of its method."""

    def estimate(self, sources: Sources) -> Estimate:
        """The value with its interval and its bounds."""
        numerators = np.stack([part.numerator for part in self.parts])
        denominators = np.stack([part.denominator for part in self.parts])
        n_missing = int(np.max([part.missing for part in self.parts], axis=0).sum())
        bounds = self.bounds() if n_missing else (None, None)
        if not denominators.sum(axis=1).all():  # one part is empty: there is no value
            return replace(NOTHING, n_missing=n_missing, worst=bounds[0], best=bounds[1])
        sample = Sample(sources.sums(numerators), sources.sums(denominators), sources.single)
        value = float(self.formula(sample.ratios))
        (low, high), method = self.limits(value, sample)
        n = int(denominators.max(axis=0).sum())
        return Estimate(value, low, high, n, n_missing, method, *bounds)

    def bounds(self) -> tuple[float, float]:
        """The worst and the best value that the missing data allow; both the value itself where nothing is missing."""
        worst = self.formula(np.array([part.worst for part in self.parts]))
        best = self.formula(np.array([part.best for part in self.parts]))
        return float(worst), float(best)

    def paired(self, other: Self) -> tuple[Floats, Floats]:
        """[2k, sessions] of both: numerators then denominators, each part cut to the sessions where both have data."""
        mine, theirs = [], []
        for a, b in zip(self.parts, other.parts, strict=True):
            both = (a.denominator > 0) & (b.denominator > 0)
            mine.append((a.numerator * both, a.denominator * both))
            theirs.append((b.numerator * both, b.denominator * both))
        return _stacked(mine), _stacked(theirs)

    def of_totals(self, totals: Floats) -> Floats:
        """The value of summed columns as :meth:`paired` lays them out: [2k, ...] -> [...]."""
        numerators, denominators = np.split(totals, 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.formula(numerators / denominators)


def _stacked(columns: Sequence[tuple[Floats, Floats]]) -> Floats:
    return np.stack([numerator for numerator, _ in columns] + [denominator for _, denominator in columns])


class Sample:
    """Sums of one quantity by source, over the sources that have data.

    Attributes:
        numerators, denominators: [k, sources].
        single: every source has one session.
    """

    def __init__(self, numerators: Floats, denominators: Floats, single: bool) -> None:
        with_data = np.flatnonzero(denominators.max(axis=0))
        all_have = len(with_data) == denominators.shape[1]
        self.numerators = numerators if all_have else numerators[:, with_data]
        self.denominators = denominators if all_have else denominators[:, with_data]
        self.single = single

    def __len__(self) -> int:
        return int(self.numerators.shape[1])

    @cached_property
    def ratios(self) -> Floats:
        """[k]."""
        return np.asarray(self.numerators.sum(axis=1) / self.denominators.sum(axis=1))

    @cached_property
    def left_out(self) -> Floats:
        """[k, sources]: the ratios without one source; NaN where it alone has data."""
        with np.errstate(invalid="ignore", divide="ignore"):
            numerators = self.numerators.sum(axis=1, keepdims=True) - self.numerators
            denominators = self.denominators.sum(axis=1, keepdims=True) - self.denominators
            return np.asarray(numerators / denominators)

    @cached_property
    def plain(self) -> bool:
        """Every source has one session with one value, and all values are 0 or 1."""
        ones = ((column == 0) | (column == 1) for column in (self.denominators, self.numerators))
        return self.single and all(bool(column.all()) for column in ones)

    @cached_property
    def shares(self) -> Floats:
        """[k, sources]: the weight of each source in each ratio."""
        return np.asarray(self.denominators / self.denominators.sum(axis=1, keepdims=True))

    def effective_size(self, one_value: float, replicates: Floats, shares: Floats) -> float:
        """How many independent values would give the same variance.

        Args:
            one_value: the variance of a single value. replicates: [sources], the value without each source.
            shares: [sources], the weights of the sources; they alone decide where the variance is 0.
        """
        variance = jackknife_variance(replicates) * (len(self) - 1) / len(self)
        return one_value / variance if variance > 0 else 1 / float((shares**2).sum())


def jackknife_variance(replicates: Floats) -> float:
    """Variance of a statistic from its values without one source each."""
    count = len(replicates)
    return float(((replicates - replicates.mean()) ** 2).sum()) * (count - 1) / count


@dataclass(frozen=True)
class Rate(Quantity):
    """The plain mean of ratios of values in [0, 1]."""

    def formula(self, ratios: Floats) -> Floats:
        return np.asarray(ratios.mean(axis=0))

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        if len(self.parts) == 1 and sample.plain:
            return wilson(value, len(sample)), "wilson"
        replicates = self.formula(sample.left_out)
        size = sample.effective_size(value * (1 - value), replicates, sample.shares.mean(axis=0))
        return wilson(value, size, student(len(sample))), "wilson-jackknife"


@dataclass(frozen=True)
class Overall(Quantity):
    """Square root of the first ratio times the mean of the others; the interval is that of the product, rooted."""

    def formula(self, ratios: Floats) -> Floats:
        return np.asarray(np.sqrt(self._product(ratios)))

    def _product(self, ratios: Floats) -> Floats:
        # Leaving out the only success may give -0.0 or -1e-17: a product of rates is never negative.
        return np.asarray(np.maximum(ratios[0] * ratios[1:].mean(axis=0), 0.0))

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        product = value**2
        size = sample.effective_size(product * (1 - product), self._product(sample.left_out), sample.shares[0])
        low, high = wilson(min(product, 1.0), size, student(len(sample)))
        return (math.sqrt(low), math.sqrt(high)), "wilson-jackknife"


@dataclass(frozen=True)
class Difference(Quantity):
    """Mean of values in {-1, 0, 1}: the ratios are the share of +1 and the share of -1.

    Attributes:
        shared: both sides are the same images by construction (turn 1 of two protocols).
    """

    shared: bool = False

    def formula(self, ratios: Floats) -> Floats:
        return np.asarray(ratios[0] - ratios[1])

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        if self.shared and not sample.numerators.any():
            return (0.0, 0.0), "shared"
        if sample.plain:
            gains, losses = sample.numerators.sum(axis=1)
            return tango(float(gains), float(losses), len(sample)), "tango"
        gained, lost = sample.ratios
        one_value = float(gained + lost) - value**2
        size = sample.effective_size(one_value, self.formula(sample.left_out), sample.shares[0])
        return tango(gained * size, lost * size, size, student(len(sample))), "tango-jackknife"


@dataclass(frozen=True)
class Gap(Quantity):
    """Mean of the first half of the ratios minus mean of the second half, all of values in [0, 1]."""

    def formula(self, ratios: Floats) -> Floats:
        first, second = np.split(ratios, 2)
        return np.asarray(first.mean(axis=0) - second.mean(axis=0))

    def bounds(self) -> tuple[float, float]:
        """The largest and the least difference: as in :class:`Difference`, a large one is the bad end."""
        half = len(self.parts) // 2
        worst, best = (np.array([getattr(part, end) for part in self.parts]) for end in ("worst", "best"))
        mixed = np.concatenate([best[:half], worst[half:]]), np.concatenate([worst[:half], best[half:]])
        return float(self.formula(mixed[0])), float(self.formula(mixed[1]))

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        half = len(self.parts) // 2
        means, ends = [], []
        for parts, rows in ((self.parts[:half], slice(half)), (self.parts[half:], slice(half, None))):
            side = Sample(sample.numerators[rows], sample.denominators[rows], sample.single)
            rate = Rate(parts)
            mean = float(rate.formula(side.ratios))
            means.append((mean, rate.formula(sample.left_out[rows])))
            ends.append(rate.limits(mean, side)[0])
        (first, first_replicates), (second, second_replicates) = means
        varies = np.ptp(first_replicates) > 0 and np.ptp(second_replicates) > 0
        correlation = float(np.corrcoef(first_replicates, second_replicates)[0, 1]) if varies else 0.0
        return mover(first, ends[0], second, ends[1], correlation), "mover-jackknife"


@dataclass(frozen=True)
class Mean(Quantity):
    """One ratio of values without a fixed range."""

    def formula(self, ratios: Floats) -> Floats:
        return np.asarray(ratios[0])

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        half = student(len(sample)) * math.sqrt(jackknife_variance(self.formula(sample.left_out)))
        return (value - half, value + half), "t-jackknife"


@dataclass(frozen=True)
class Distance(Quantity):
    """The absolute value of one ratio of values without a fixed range, the mean of differences.

    The interval is that of the difference itself, folded at 0. Wherever the one holds the true difference the other
    holds its size, so it covers at least as often; where the difference may be 0 it starts at 0. The value itself is
    then too large on average (by up to 0.8 standard errors at a true 0): read the interval, not the point.
    """

    def formula(self, ratios: Floats) -> Floats:
        return np.asarray(np.abs(ratios[0]))

    def bounds(self) -> tuple[float, float]:
        (part,) = self.parts
        if math.isnan(part.worst) or math.isnan(part.best):
            return math.nan, math.nan
        least, largest = _folded(part.worst, part.best)
        return largest, least

    def limits(self, value: float, sample: Sample) -> tuple[Limits, str]:
        (low, high), _ = Mean(self.parts).limits(float(sample.ratios[0]), sample)
        return _folded(low, high), "t-folded"


def _folded(low: float, high: float) -> Limits:
    """The absolute values of an interval."""
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return least, max(abs(low), abs(high))
