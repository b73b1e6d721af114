"""Which sessions are played next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Literal

import numpy as np

from mteval.seeds import seed_of
from mteval.sessions import Session
from mttrain.advantages import Floats
from mttrain.rollouts import Group

_CANDIDATES = 8
_MEMORY = 0.9
_UNKNOWN = 0.8  # success that nothing is known of: in doubt, so it is tried


class Chooser:
    """Draws the sessions of an iteration from a pool.

    ``even`` deals them out in a random order, each once, before any comes again. ``uncertain`` deals out
    :data:`_CANDIDATES` times as many and takes those with the largest sum over turns of p (1 - p), p being the running
    success of the turn's task type at that turn: where every chain succeeds, or none does, a group teaches nothing.
    """

    def __init__(self, pool: Sequence[Session], how: Literal["even", "uncertain"], seed: int) -> None:
        self.pool, self.how, self.seed = pool, how, seed
        self.success: dict[str, float] = {}
        self._epoch, self._shuffled = -1, list[int]()

    def draw(self, iteration: int, count: int) -> list[Session]:
        """``count`` sessions, a function of the seed, the iteration and what was learnt before it."""
        if self.how == "even":
            return self._dealt(iteration * count, count)
        dealt = self._dealt(iteration * count * _CANDIDATES, count * _CANDIDATES)
        rng = Random(seed_of(self.seed, "choice", iteration))
        # A weighted draw without replacement (Efraimidis and Spirakis): the largest u ** (1 / weight).
        keys = [rng.random() ** (1 / self._doubt(session)) for session in dealt]
        best = sorted(range(len(dealt)), key=lambda k: keys[k], reverse=True)[:count]
        return [dealt[k] for k in sorted(best)]

    def learn(self, groups: Sequence[Group], success: Floats) -> None:
        """Take in s_{i,t}, [groups, members, turns]; NaN where a turn was not played or not judged."""
        for group, outcome in zip(groups, success, strict=True):
            for t, turn in enumerate(group.session.turns):
                played = outcome[:, t][~np.isnan(outcome[:, t])]
                if len(played):
                    key = f"{turn.task_type}@{t + 1}"
                    before = self.success.get(key, _UNKNOWN)
                    self.success[key] = _MEMORY * before + (1 - _MEMORY) * float(played.mean())

    def doubt(self, session: Session, turn: int) -> float:
        """p (1 - p) of a turn (from 0), between 0 and 0.25, p being the success its task type has had there lately."""
        rate = self.success.get(f"{session.turns[turn].task_type}@{turn + 1}", _UNKNOWN)
        return rate * (1 - rate)

    def state(self) -> str:
        """What was learnt, as text."""
        return json.dumps(self.success)

    def restore(self, state: str) -> None:
        """Go on from what :meth:`state` gave."""
        self.success = json.loads(state)

    def _doubt(self, session: Session) -> float:
        return sum(self.doubt(session, turn) for turn in range(len(session.turns))) + 1e-3

    def _dealt(self, first: int, count: int) -> list[Session]:
        size = len(self.pool)
        found = []
        for position in range(first, first + count):
            epoch, place = divmod(position, size)
            found.append(self.pool[self._order(epoch)[place]])
        return found

    def _order(self, epoch: int) -> list[int]:
        if self._epoch != epoch:
            self._epoch = epoch
            self._shuffled = Random(seed_of(self.seed, "deal", epoch)).sample(range(len(self.pool)), len(self.pool))
        return self._shuffled
