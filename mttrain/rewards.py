"""Rewards are mteval's own scorers with weights; there is no second way to score.

Views are judged in threads while the policy samples on. A failed judgement is a state, never a number: its chain is
left out of its group and the failure is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from mteval.scorers.base import Score, Scorer, TurnView
from mteval.scoring import ask
from mttrain.advantages import Bools, Floats
from mttrain.recipe import Reward
from mttrain.rollouts import Place

_NOT_JUDGED = "not_applicable"


@dataclass(frozen=True, slots=True)
class Judgements:
    """The verdicts of one iteration, on the groups ``indices`` (numbered over all processes).

    Attributes:
        values: [groups, members, turns, rewards]; NaN where there is nothing to judge or the judgement failed.
        failed: [groups, members, turns, rewards].
        states: how often each state was given, by scorer.
    """

    indices: tuple[int, ...]
    values: Floats
    failed: Bools
    states: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def valid(self) -> Bools:
        """[groups, members]: chains without a failed judgement."""
        return np.logical_not(self.failed.any(axis=(2, 3)))


class Judge:
    """Scores one iteration's turns in the background."""

    def __init__(self, scorers: Sequence[Scorer], rewards: Sequence[Reward], threads: int = 1) -> None:
        self.scorers, self.rewards = scorers, rewards
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="judge")
        self._asked: list[tuple[int, list[Place], Future[list[Score]]]] = []

    def submit(self, places: list[Place], views: list[TurnView]) -> None:
        """Have every scorer judge ``views``; returns at once."""
        for k, scorer in enumerate(self.scorers):
            self._asked.append((k, places, self._pool.submit(ask, scorer, views)))

    def verdicts(self, indices: Sequence[int], members: int, turns: int) -> Judgements:
        """Wait for all that was submitted since :meth:`forget`."""
        shape = (len(indices), members, turns, len(self.scorers))
        values, failed = np.full(shape, np.nan), np.zeros(shape, bool)
        row = {index: k for k, index in enumerate(indices)}
        states: dict[str, Counter[str]] = {scorer.info.id: Counter() for scorer in self.scorers}
        for k, places, future in self._asked:
            for place, score in zip(places, future.result(), strict=True):
                where = (row[place.group], place.member, place.turn, k)
                states[self.scorers[k].info.id][score.state] += 1
                if score.value is not None:
                    values[where] = self._points(k, score.value)
                else:
                    failed[where] = score.state != _NOT_JUDGED
        return Judgements(tuple(indices), values, failed, states)

    def forget(self) -> None:
        """An iteration is over."""
        self._asked.clear()

    def _points(self, k: int, value: float) -> float:
        threshold = self.scorers[k].info.success_threshold
        if self.rewards[k].of == "success" and threshold is not None:
            return float(value >= threshold)
        return float(value)
