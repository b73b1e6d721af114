"""How many calls of an editor or a judge run side by side, how fast, and for how much money."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

from mteval.errors import CallError, Fatal, RateLimited, Transient

LONGEST_WAIT = 600.0
"""Seconds; who asks to wait longer is not waited for."""


class Answered(Protocol):
    """What an editor's or a judge's answer, a dataclass, says of the call: seconds and US dollars, or the error."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def error(self) -> CallError | None: ...

    @property
    def latency(self) -> float: ...

    @property
    def cost(self) -> float: ...


Request = TypeVar("Request")
Given = TypeVar("Given", bound=Answered)
Sleep = Callable[[float], None]


class Stopped(Exception):
    """The work that this was a part of is to end, so nothing more is waited for or asked."""


def go_on(stop: threading.Event) -> None:
    """Raises:
    Stopped: ``stop`` is set.
    """
    if stop.is_set():
        raise Stopped


def _wait(seconds: float, stop: threading.Event, sleep: Sleep | None) -> None:
    """Raises:
    Stopped: before or meanwhile.
    """
    if sleep is None:
        stop.wait(seconds)
    else:
        sleep(seconds)
    go_on(stop)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently what is :class:`Transient` or :class:`RateLimited` is asked again.

    Attributes:
        attempts: calls in all. first_wait: seconds before the second, doubled each time.
        longest_wait: who asks to wait longer is not waited for.
        sleep: replaced in tests; None = wait, until told to stop.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = LONGEST_WAIT
    sleep: Sleep | None = None

    def wait(self, errors: Sequence[CallError], attempt: int) -> float:
        """Seconds to wait before call ``attempt + 1``: what was asked for, or the back-off."""
        asked = [error.retry_after for error in errors if isinstance(error, RateLimited)]
        waits = [wait for wait in asked if wait is not None]
        return max(waits) if waits else self.first_wait * 2.0 ** (attempt - 1)

    def ask(
        self,
        requests: Sequence[Request],
        call: Callable[[Sequence[Request], bool], list[Given]],
        stop: threading.Event | None = None,
        unfinished: Callable[[Sequence[tuple[Given, int]]], None] = lambda results: None,
    ) -> list[tuple[Given, int]]:
        """Each answer with the number of its attempts, latency and cost those of all of them.

        Args:
            call: told the requests, and whether their own time to wait has passed.
            stop: set where nothing is to be asked again.
            unfinished: told what was answered, and paid for, before something was raised.

        Raises:
            Fatal: an answer is one. Stopped: see ``stop``. Whatever ``call`` raises.
        """
        stop = stop or threading.Event()
        results: list[tuple[Given, int]] = []
        try:
            results = [(result, 1) for result in call(requests, False)]
            _end_at_fatal(results)
            for attempt in range(1, self.attempts):
                again = [
                    k for k, (result, _) in enumerate(results) if isinstance(result.error, Transient | RateLimited)
                ]
                if not again:
                    break
                wait = self.wait([error for k in again if (error := results[k][0].error)], attempt)
                if wait > self.longest_wait:
                    break
                _wait(wait, stop, self.sleep)
                for k, fresh in zip(again, call([requests[k] for k in again], True), strict=True):
                    before, attempts = results[k]
                    spent = replace(fresh, latency=before.latency + fresh.latency, cost=before.cost + fresh.cost)
                    results[k] = spent, attempts + 1
                _end_at_fatal(results)
        except BaseException:  # Ctrl-C too
            unfinished(results)
            raise
        return results


def _end_at_fatal(results: Sequence[tuple[Answered, int]]) -> None:
    for result, _ in results:
        if isinstance(result.error, Fatal):
            raise result.error


def in_parallel(
    do: Callable[[Request, threading.Event], object],
    items: Sequence[Request],
    most: int,
    stop: threading.Event | None = None,
) -> None:
    """Do something to every item, ``most`` of them side by side; what is raised first is raised here.

    What is on its way then, or at Ctrl-C, was paid for and is not cut off: it is told by ``stop`` that it is to end at
    its next good moment. What only waits ends at once.
    """
    stop = stop or threading.Event()
    if most == 1:
        for item in items:
            do(item, stop)
        return

    def unless_stopped(item: Request) -> None:
        if not stop.is_set():
            do(item, stop)

    with ThreadPoolExecutor(most, thread_name_prefix="parallel") as pool:
        futures = [pool.submit(unless_stopped, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class Pace:
    """Lets calls pass, fewer of them after an answer said that they are too many.

    Where an answer is :class:`RateLimited`, the calls that may run side by side are halved, and no call begins before
    the time that was asked for. Every answer that is not lets them grow again, by one a round (additive
    increase, multiplicative decrease, as in TCP).

    Args:
        most: calls side by side. clock, sleep: replaced in tests. stop: set where no call is to begin any more.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.most, self.limit = most, float(most)
        self._clock, self._sleep, self._stop = clock, sleep, stop or threading.Event()
        self._running, self._begins, self._halved = 0, 0.0, float("-inf")
        self._changed = threading.Condition()

    def call(self, ask: Callable[[], list[Given]], waited: bool = False) -> list[Given]:
        """Call ``ask`` as soon as it may run, and learn from its answers.

        Args:
            waited: its own time has come already.

        Raises:
            Stopped: it was told to stop before the call could begin.
        """
        began = self._enter(waited)
        results: list[Given] = []
        try:
            results = ask()
        finally:
            self._leave(results, began)
        return results

    def _enter(self, waited: bool) -> float:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running < max(1, int(self.limit)))
                go_on(self._stop)
                wait = self._begins - self._clock()
                if waited or wait <= 0:
                    self._running += 1
                    return self._clock()
            _wait(wait, self._stop, self._sleep)

    def _leave(self, results: Sequence[Answered], began: float) -> None:
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

    As long as nothing tells what an edit costs, one call is made at a time.

    Args:
        spent: already. expected: of one edit, until a dearer one was seen.
        must_tell: an image without a cost is one whose cost is not known. untold: there was one already.
        stop: set where no call is to begin any more.
    """

    def __init__(
        self,
        most: float | None,
        spent: float = 0.0,
        expected: float = 0.0,
        must_tell: bool = False,
        untold: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self.most, self.spent, self.expected = most, spent, expected
        self._must_tell, self._untold, self._stop = must_tell, untold, stop or threading.Event()
        self._reserved, self._running = 0.0, 0
        self._changed = threading.Condition()

    def call(self, edits: int, edit: Callable[[], list[Given]]) -> list[Given]:
        """Call ``edit``, which answers ``edits`` requests, and count what it costs.

        Raises:
            Fatal: it may cost more than is left, or nobody tells what it costs.
            Stopped: it was told to stop before the call could begin.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.most is None or self.expected > 0 or self._running == 0)
            go_on(self._stop)
            kept = edits * self.expected
            if self.most is not None:
                self._check(self.most, kept)
            self._reserved += kept
            self._running += 1
        results: list[Given] = []
        try:
            results = edit()
        finally:
            with self._changed:
                self._reserved -= kept
                self._running -= 1
                self.spent += sum(result.cost for result in results)
                self.expected = max([self.expected, *(result.cost for result in results)])
                self._untold |= self._must_tell and any(not result.error and not result.cost for result in results)
                self._changed.notify_all()
        return results

    def _check(self, most: float, kept: float) -> None:
        if self._untold and not self.expected:
            raise Fatal(
                "there was an image, but not what it cost, so --max-cost cannot be kept: give cost_per_image=, in US "
                "dollars"
            )
        if self.spent + self._reserved + kept > most:
            raise Fatal(
                f"${self.spent:.2f} are spent and the next edit may cost ${self.expected:.2f}, more than "
                f"--max-cost {most:g}: the same command with a higher one goes on"
            )
