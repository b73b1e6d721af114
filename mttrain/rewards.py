"""Rewards are mteval's own scorers with weights; there is no second way to score.

Views are judged in threads while the policy samples on. A failed judgement is a state, never a number: its chain (in
a branch its edit) is left out of its group and the failure is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from mteval.scorers.base import AsksJudge, Score, Scorer, TurnView
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
    def share_failed(self) -> float:
        """Of the judgements that were asked for and had something to judge."""
        states = sum(self.states.values(), Counter[str]())
        asked = states.total() - states[_NOT_JUDGED]
        return (asked - states["ok"]) / asked if asked else 0.0


class Judge:
    """Scores one iteration's turns in the background, each scorer as many batches side by side as it takes."""

    def __init__(self, scorers: Sequence[Scorer], rewards: Sequence[Reward]) -> None:
        self.scorers, self.rewards = scorers, rewards
        self._pools = [ThreadPoolExecutor(scorer.info.concurrency, thread_name_prefix="judge") for scorer in scorers]
        self._asked: list[tuple[int, list[Place], Future[list[Score]]]] = []
        self._took: dict[str, float] = {}

    def submit(self, places: list[Place], views: list[TurnView]) -> None:
        """Have every scorer judge ``views``, those of whole conversations the last turns; returns at once."""
        for k, scorer in enumerate(self.scorers):
            every = scorer.info.scope == "turn"
            chosen = [n for n, view in enumerate(views) if every or view.turn == len(view.session.turns)]
            if chosen:
                asked = self._pools[k].submit(ask, scorer, [views[n] for n in chosen])
                self._asked.append((k, [places[n] for n in chosen], asked))

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

    def took(self) -> dict[str, float]:
        """Calls, cache hits, unanswered questions, seconds and US dollars of all judges since the last time."""
        usages = {id(scorer.asker): scorer.asker.usage for scorer in self.scorers if isinstance(scorer, AsksJudge)}
        if not usages:
            return {}
        now = {
            "judge/calls": sum(usage.calls for usage in usages.values()),
            "judge/hits": sum(usage.hits for usage in usages.values()),
            "judge/failed": sum(usage.states.total() - usage.states["ok"] for usage in usages.values()),
            "judge/seconds": sum(usage.seconds for usage in usages.values()),
            "judge/cost": sum(usage.cost for usage in usages.values()),
        }
        since = {name: figure - self._took.get(name, 0.0) for name, figure in now.items()}
        self._took = now
        return since

    def forget(self) -> None:
        """An iteration is over."""
        self._asked.clear()

    def _points(self, k: int, value: float) -> float:
        threshold = self.scorers[k].info.success_threshold
        if self.rewards[k].of == "success" and threshold is not None:
            return float(value >= threshold)
        return float(value)
