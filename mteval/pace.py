"""How many calls of an editor run side by side, how fast, and for how much money."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from mteval.editors.base import EditResult, Fatal, RateLimited

LONGEST_WAIT = 600.0
"""Seconds; an editor that asks to wait longer is not waited for."""


class Pace:
    """Lets calls pass, fewer of them after the editor said that they are too many.

    Where an answer is :class:`RateLimited`, the calls that may run side by side are halved, and no call begins before
    the time that the editor asked for. Every answer that is not lets them grow again, by one a round (additive
    increase, multiplicative decrease, as in TCP).

    Args:
        most: calls side by side. clock, sleep: replaced in tests.
    """

    def __init__(
        self, most: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.most, self.limit = most, float(most)
        self._clock, self._sleep = clock, sleep
        self._running, self._begins, self._halved = 0, 0.0, float("-inf")
        self._changed = threading.Condition()

    def call(self, edit: Callable[[], list[EditResult]], waited: bool = False) -> list[EditResult]:
        """Call ``edit`` as soon as it may run, and learn from its answers.

        Args:
            waited: its own time has come already.
        """
        began = self._enter(waited)
        results: list[EditResult] = []
        try:
            results = edit()
        finally:
            self._leave(results, began)
        return results

    def _enter(self, waited: bool) -> float:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running < max(1, int(self.limit)))
                wait = self._begins - self._clock()
                if waited or wait <= 0:
                    self._running += 1
                    return self._clock()
            self._sleep(wait)

    def _leave(self, results: Sequence[EditResult], began: float) -> None:
        with self._changed:
            self._running -= 1
            limited = [result.error for result in results if isinstance(result.error, RateLimited)]
            if not limited:
                self.limit = min(self.most, self.limit + 1 / self.limit)
            elif began >= self._halved:  # those that were on their way already say nothing new
                self.limit = max(1.0, self.limit / 2)
                self._halved = self._clock()
            waits = [error.retry_after or 0.0 for error in limited]
            for wait in waits if all(wait <= LONGEST_WAIT for wait in waits) else ():
                self._begins = max(self._begins, self._clock() + wait)
            self._changed.notify_all()


class Budget:
    """Stops a run before it costs more than ``most`` US dollars, None = no limit.

    Args:
        spent: already. expected: of one edit, until a dearer one was seen.
    """

    def __init__(self, most: float | None, spent: float = 0.0, expected: float = 0.0) -> None:
        self.most, self.spent, self.expected = most, spent, expected
        self._reserved = 0.0
        self._lock = threading.Lock()

    def call(self, edits: int, edit: Callable[[], list[EditResult]]) -> list[EditResult]:
        """Call ``edit``, which answers ``edits`` requests, and count what it costs.

        Raises:
            Fatal: it may cost more than is left.
        """
        with self._lock:
            kept = edits * self.expected
            if self.most is not None and self.spent + self._reserved + kept > self.most:
                raise Fatal(
                    f"${self.spent:.2f} are spent and the next edit may cost ${self.expected:.2f}, more than "
                    f"--max-cost {self.most:g}: the same command with a higher one goes on"
                )
            self._reserved += kept
        results: list[EditResult] = []
        try:
            results = edit()
        finally:
            with self._lock:
                self._reserved -= kept
                self.spent += sum(result.cost for result in results)
                self.expected = max([self.expected, *(result.cost for result in results)])
        return results
