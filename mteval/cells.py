"""Values that may be missing, and the arithmetic of verdicts over them.

The axes are [unit, repeat, session]; a unit is a turn, or an instruction of a turn. What is computed within a repeat
(products over turns, pairs of protocols) is averaged within the session only by :func:`share`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mteval.estimators import Bools, Part, Rate, ratio
from mteval.stats import Floats


@dataclass(frozen=True)
class Cells:
    """Values, verdicts (0 or 1) mostly.

    Attributes:
        values: 0 where not known. known: there is a judgement. missing: there should be one. Neither: nothing to judge.
    """

    values: Floats
    known: Bools
    missing: Bools

    @property
    def judgeable(self) -> Bools:
        """Known or missing."""
        return self.known | self.missing

    def at(self, turn: int) -> Cells:
        """The cells of one turn; the axis stays, with length 1."""
        unit = slice(turn - 1, turn)
        return Cells(self.values[unit], self.known[unit], self.missing[unit])

    def only(self, mask: Bools) -> Cells:
        """Outside ``mask`` there is nothing to judge."""
        return Cells(self.values * mask, self.known & mask, self.missing & mask)

    def clipped(self, highest: float) -> Cells:
        """No value above ``highest``."""
        return Cells(np.minimum(self.values, highest), self.known, self.missing)

    def minus(self, other: Cells) -> Cells:
        """The differences where both are known; missing where one is, and the other is known or missing."""
        known = self.known & other.known
        both = self.judgeable & other.judgeable
        return Cells((self.values - other.values) * known, known, both & ~known)

    def complement(self) -> Cells:
        """One minus every known value."""
        return Cells((1.0 - self.values) * self.known, self.known, self.missing)


def share(cells: Cells, worst: float = 0.0, best: float = 1.0) -> Part:
    """The mean of values, by session: mean over repeats, sum over units.

    Args:
        worst, best: what a missing value may be; NaN where the values have no such end, and then neither has the mean.
    """
    ends = (Cells(np.where(cells.missing, end, cells.values), cells.judgeable, cells.missing) for end in (worst, best))
    return _part(cells, *ends)


def rate(cells: Cells) -> Rate:
    """The mean of values in [0, 1]."""
    return Rate((share(cells),))


def product(verdicts: Cells, exists: Bools) -> Cells:
    """Whether all units so far succeeded, three-valued.

    One known failure makes it 0, otherwise a missing verdict makes it missing. A unit with nothing to judge does not
    count; where no unit so far has anything to judge there is nothing to judge.

    Args:
        exists: whether the session has such a turn; where not there is nothing to judge.
    """
    failed, unknown = (np.logical_or.accumulate(mask, axis=0) for mask in _failed_and_unknown(verdicts))
    known = exists & (failed | (np.logical_or.accumulate(verdicts.judgeable, axis=0) & ~unknown))
    return Cells((known & ~failed).astype(np.float64), known, exists & ~failed & unknown)


def before(verdicts: Cells) -> Cells:
    """P_t: whether all of the turns 1..t-1 succeeded, three-valued as in :func:`product`; P_1 = 1."""
    failed, unknown = (np.logical_or.accumulate(mask, axis=0) for mask in _failed_and_unknown(verdicts))
    failed, unknown = (np.concatenate([np.zeros_like(mask[:1]), mask[:-1]]) for mask in (failed, unknown))
    known = failed | ~unknown
    return Cells((~failed & ~unknown).astype(np.float64), known, ~known)


def two_in_a_row(verdicts: Cells, exists: Bools) -> Cells:
    """Whether two consecutive units so far succeeded, three-valued.

    One known pair makes it 1, otherwise a pair that may be one makes it missing. A unit with nothing to judge is in no
    pair; where no unit so far has anything to judge there is nothing to judge.

    Args:
        exists: as in :func:`product`.
    """
    is_so = verdicts.known & (verdicts.values == 1)
    found, possible = (_pair_so_far(mask) for mask in (is_so, is_so | verdicts.missing))
    known = exists & (found | (np.logical_or.accumulate(verdicts.judgeable, axis=0) & ~possible))
    return Cells((found & exists).astype(np.float64), known, exists & possible & ~found)


def _pair_so_far(mask: Bools) -> Bools:
    pairs = np.zeros_like(mask)
    pairs[1:] = mask[1:] & mask[:-1]
    return np.asarray(np.logical_or.accumulate(pairs, axis=0))


def _failed_and_unknown(verdicts: Cells) -> tuple[Bools, Bools]:
    return verdicts.known & (verdicts.values == 0), verdicts.missing


def conditional(verdicts: Cells, earlier: Cells) -> Part:
    """Mean of the verdicts where ``earlier`` (:func:`before`) holds.

    Where ``earlier`` is missing, the worst case takes in every turn that failed or may have failed, the best case every
    turn that succeeded or may have succeeded.
    """
    holds, perhaps = earlier.values == 1, earlier.missing & verdicts.judgeable
    cells = verdicts.only(holds)
    missing = cells.missing | perhaps
    succeeded = verdicts.known & (verdicts.values == 1)
    failed = verdicts.known & (verdicts.values == 0)
    worst = Cells(cells.values, cells.judgeable | (perhaps & ~succeeded), missing)
    best_known = cells.judgeable | (perhaps & ~failed)
    best = Cells(((succeeded | verdicts.missing) & best_known).astype(np.float64), best_known, missing)
    return _part(Cells(cells.values, cells.known, missing), worst, best)


def differences(
    first: Cells, second: Cells, given: Cells | None = None, weight: Cells | None = None
) -> tuple[Part, Part]:
    """The share of +1 and the share of -1 in ``weight * (first - second)``, all of them verdicts.

    Args:
        given: must be known for a pair to count.
        weight: known where ``given`` is; 1 if None.

    The worst case is the largest difference, the best case the least.
    """
    both = first.judgeable & second.judgeable
    known = first.known & second.known & (given.known if given else True)
    high = (first.values + first.missing - second.values) * both
    low = (first.values - second.values - second.missing) * both
    if weight:
        high = np.where(weight.known, weight.values * high, np.maximum(high, 0.0))
        low = np.where(weight.known, weight.values * low, np.minimum(low, 0.0))

    def signed(sign: float) -> Part:
        worst, best = (Cells(np.maximum(sign * end, 0.0), both, both & ~known) for end in (high, low))
        return _part(Cells(worst.values * known, known, both & ~known), worst, best)

    return signed(1.0), signed(-1.0)


def _part(cells: Cells, worst: Cells, best: Cells) -> Part:
    """Mean over the repeats of a unit, then sum over the units of a session."""
    missing = cells.missing.any(axis=1).sum(axis=0)
    numerator, denominator = _sums(cells)
    bounds = (_mean(worst), _mean(best)) if missing.any() else (_ratio_of(numerator, denominator),) * 2
    return Part(numerator, denominator, missing, *bounds)


def _sums(cells: Cells) -> tuple[Floats, Floats]:
    counts = cells.known.sum(axis=1)
    means = cells.values.sum(axis=1) / np.maximum(counts, 1)
    numerator: Floats = means.sum(axis=0)
    return numerator, (counts > 0).sum(axis=0).astype(np.float64)


def _mean(cells: Cells) -> float:
    return _ratio_of(*_sums(cells))


def _ratio_of(numerator: Floats, denominator: Floats) -> float:
    return ratio(float(numerator.sum()), float(denominator.sum()))
