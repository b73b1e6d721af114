"""Power: how many sessions show a difference of two models, and which difference a number of sessions shows.

The difference is that of turn-N success, d_i = s_i of A - s_i of B on the same sessions, with mean delta;
``discordant`` is the mean of d_i^2, for single verdicts the share of sessions on which the two disagree. The tests are
those of :mod:`mteval.compare`, two-sided at 5 %:

- one verdict a session and a source of its own for each: McNemar's exact test. Its power is summed over how many
  sessions are discordant, m ~ Binomial(n, discordant), and how many of these are gains,
  Binomial(m, (1 + delta / discordant) / 2); see Duffy (1984), Biometrics 40, 1005-1015. The normal approximation to it
  is n = (z_(1-alpha/2) sqrt(discordant) + z_power sqrt(discordant - delta^2))^2 / delta^2 (Connor 1987, Biometrics 43,
  207-211), which promises too much for few sessions.
- several sessions of one start image, or several repeats: Student's t over sources, with the variance
  effect * (discordant - delta^2) / n. The design effect is the variance of the mean over clusters divided by that of as
  many independent sessions, 1 + (sessions of a source - 1) * their correlation for sources of one size (Kish 1965,
  Survey Sampling, 5.4). Noncentral t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from mteval.estimators import Ints, Sources
from mteval.stats import ALPHA, Floats

MOST = 1_000_000
"""No plan has more sessions."""


@dataclass(frozen=True, slots=True)
class Design:
    """What the power of a comparison depends on, beside the difference and the number of sessions.

    Attributes:
        rate: success of one model, for ``discordant`` None.
        discordant: see above; None = what two models have whose successes are independent of each other, one at
            ``rate`` and the other ``difference`` above it. Models that find the same sessions hard have less.
        effect: design effect, 1 = every session counts.
        cluster: sessions of a source, on average.
        single: one verdict a session, and a source of its own for each.
    """

    rate: float | None = None
    discordant: float | None = None
    effect: float = 1.0
    cluster: float = 1.0
    single: bool = True

    def disagreeing(self, difference: float) -> float:
        """The mean of d^2 at a difference; never below the difference itself."""
        if self.discordant is not None:
            return max(self.discordant, difference)
        assert self.rate is not None
        other = self.rate + difference
        return self.rate * (1 - other) + other * (1 - self.rate)

    @property
    def largest(self) -> float:
        """The largest difference that there can be."""
        return 1.0 if self.rate is None else 1 - self.rate

    def power(self, n: float, difference: float) -> float:
        """The chance to see a difference > 0 with n sessions."""
        discordant = self.disagreeing(difference)
        if self.single:
            return mcnemar_power(math.floor(n), discordant, difference)
        variance = self.effect * (discordant - difference**2)
        return paired_power(n, variance, difference, n / self.cluster)


def design_of(first: Floats, second: Floats, sources: Sources) -> Design:
    """The design of two runs.

    Args:
        first, second: [sessions], the value of each session in either run, in [0, 1].
    """
    difference = first - second
    discordant = float((difference**2).mean())
    single = sources.single and bool(np.isin(difference, (-1, 0, 1)).all())
    return Design(None, discordant, design_effect(difference, sources), len(first) / sources.count, single)


def design_effect(values: Floats, sources: Sources) -> float:
    """Variance of the mean over clusters divided by that over independent sessions; 1 at least, for less is chance."""
    n, spread = len(values), float(values.var(ddof=1)) if len(values) > 1 else 0.0
    if sources.single or sources.count < 2 or not spread:
        return 1.0
    by_source = sources.sums((values - values.mean())[None])[0]
    clustered = sources.count / (sources.count - 1) * float((by_source**2).sum()) / n**2
    return max(1.0, clustered / (spread / n))


def mcnemar_power(n: int, discordant: float, difference: float) -> float:
    """The chance that McNemar's exact test of n pairs gives p < 5 % and the better model is the better one.

    Args:
        discordant: share of pairs that differ, in [difference, 1].
    """
    if n < 1 or not discordant:
        return 0.0
    reach = 10 * math.sqrt(n * discordant * (1 - discordant)) + 10
    pairs = np.arange(max(0, math.floor(n * discordant - reach)), min(n, math.ceil(n * discordant + reach)) + 1)
    log_chance = special.gammaln(n + 1) - special.gammaln(pairs + 1) - special.gammaln(n - pairs + 1)
    log_chance += special.xlogy(pairs, discordant) + special.xlog1py(n - pairs, -discordant)
    gain = (1 + difference / discordant) / 2
    highest = _rejected_up_to(pairs)
    rejected = special.bdtrc(np.maximum(pairs - highest - 1.0, 0.0), pairs, gain)
    return float(np.exp(log_chance) @ np.where(highest >= 0, rejected, 0.0))


def _rejected_up_to(pairs: Ints) -> Floats:
    """The largest number of losses at which the sign test of so many pairs rejects; -1 = it never does."""
    near = np.floor(special.bdtrik(ALPHA / 2, np.maximum(pairs, 1.0), 0.5))
    found = np.full(len(pairs), -1.0)
    for losses in (near - 1, near, near + 1):
        rejects = (losses >= 0) & (losses <= pairs) & (2 * special.bdtr(losses.clip(0), pairs, 0.5) < ALPHA)
        found = np.where(rejects, losses, found)
    return found


def paired_power(n: float, variance: float, difference: float, sources: float) -> float:
    """The chance that a paired t test over sources gives p < 5 % and the better model is the better one.

    Args:
        variance: of one session's difference, times the design effect. sources: how many, 2 at least to see anything.
    """
    if sources < 2:
        return 0.0
    if variance <= 0:
        return 1.0
    freedom, shift = sources - 1, difference * math.sqrt(n / variance)
    return 1 - float(special.nctdtr(freedom, shift, special.stdtrit(freedom, 1 - ALPHA / 2)))


def sessions_needed(design: Design, difference: float, power: float = 0.8) -> int | None:
    """The fewest sessions that show ``difference`` with a chance of ``power``; None above :data:`MOST`."""
    high = 1
    while design.power(high, difference) < power:
        high *= 2
        if high > MOST:
            return None
    return math.ceil(_first(lambda n: design.power(math.ceil(n), difference) >= power, high // 2, high, 0.5))


def smallest_difference(design: Design, sessions: int, power: float = 0.8) -> float | None:
    """The smallest difference that ``sessions`` show with a chance of ``power``; None where there is none so large."""
    if design.power(sessions, design.largest) < power:
        return None
    return _first(lambda difference: design.power(sessions, difference) >= power, 0.0, design.largest, 1e-5)


def _first(holds: Callable[[float], bool], low: float, high: float, within: float) -> float:
    """Where a condition begins to hold that holds at ``high``, by halving."""
    while high - low > within:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
