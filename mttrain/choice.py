"""Which sessions are played next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Literal

from mteval.sessions import Session
from mttrain.advantages import Bools
from mttrain.rollouts import Group
from mttrain.seeds import seed_of

_CANDIDATES = 8
_MEMORY = 0.95


class Chooser:
    """Draws the sessions of an iteration from a pool.

    ``even`` deals them out in a random order, each once, before any comes again. ``uncertain`` deals out
    :data:`_CANDIDATES` times as many and takes those with the largest sum over turns of p (1 - p), p being the running
    success of the turn's task type: where every chain succeeds, or none does, a group teaches nothing.
    """

    def __init__(self, pool: Sequence[Session], how: Literal["even", "uncertain"], seed: int) -> None:
        self.pool, self.how, self.seed = pool, how, seed
        self.success: dict[str, float] = {}

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

    def learn(self, groups: Sequence[Group], success: Bools) -> None:
        """Take in [groups, members, turns] of success."""
        for group, outcome in zip(groups, success, strict=True):
            for turn, share in zip(group.session.turns, outcome.mean(0), strict=False):
                before = self.success.get(turn.task_type, 0.5)
                self.success[turn.task_type] = _MEMORY * before + (1 - _MEMORY) * float(share)

    def state(self) -> str:
        return json.dumps(self.success)

    def restore(self, state: str) -> None:
        self.success = json.loads(state)

    def _doubt(self, session: Session) -> float:
        rates = [self.success.get(turn.task_type, 0.5) for turn in session.turns]
        return sum(rate * (1 - rate) for rate in rates) + 1e-3

    def _dealt(self, first: int, count: int) -> list[Session]:
        size = len(self.pool)
        found = []
        for position in range(first, first + count):
            epoch, place = divmod(position, size)
            found.append(self.pool[self._order(epoch)[place]])
        return found

    def _order(self, epoch: int) -> list[int]:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._shuffled = Random(seed_of(self.seed, "deal", epoch)).sample(range(len(self.pool)), len(self.pool))
        return self._shuffled
