"""Asking a judge: side by side, at its pace, from the cache where it has said it before, once more where it has to.

What comes back for every question is a :class:`~mteval.judges.contract.Reading`, a state where there is no value:

===================  ==========================================================
state                the judge
===================  ==========================================================
``ok``               said something in the format
``parse_error``      did not, nor when it was told again (one repair)
``truncated``        did not come to the end, nor when it was told again
``refused``          was stopped by a content filter
``transport_error``  cannot be reached, or answers with errors, after every retry
``infra_error``      did not take the question as it was put (an argument, an image too large)
===================  ==========================================================

Its ``Fatal`` (a key refused) is raised: every other question would end in it too.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from mteval import registry
from mteval.config import Named
from mteval.errors import Blocked, CallError, Fatal, RateLimited, Transient, UsageError
from mteval.judges.base import Answer, Judge, JudgeInfo, Question
from mteval.judges.cache import Cache, default_path, key_of
from mteval.judges.contract import OutputContract, Reading
from mteval.pace import Pace, Retry
from mteval.sessions import ScoreState

if TYPE_CHECKING:
    from PIL.Image import Image

    Part = str | Image

_MENDABLE = ("parse_error", "truncated")
_DOWN_AFTER = 3
"""Rounds of the judge's concurrency in which no call is answered, after every retry: then it is down."""
_DOWN_FOR = 30.0
"""Seconds for which a judge that is down is not asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and how its answer is read.

    Attributes:
        parts: text and images in the order in which they are shown; the contract's format is added at the end.
        vote, temperature: see :class:`~mteval.judges.base.Question`.
    """

    parts: tuple[Part, ...]
    contract: OutputContract
    vote: int = 0
    temperature: float = 0.0

    @property
    def question(self) -> Question:
        contract = self.contract
        parts = (*self.parts, contract.format) if contract.format else self.parts
        return Question(parts, contract.tokens, self.temperature, contract.choices, self.vote)


@dataclass
class Usage:
    """What a judge was asked and took so far: ``calls`` made and ``hits`` of the cache, tokens, seconds, US dollars.

    ``seconds`` are those of the calls, one after the other. ``states`` counts the readings.
    """

    calls: int = 0
    hits: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    states: Counter[str] = field(default_factory=Counter)


class Asker:
    """One judge for everybody who asks it in this process.

    Args:
        known: replies of earlier runs; None = none are kept.
        retry: of what may work when asked again. clock: replaced in tests.
    """

    def __init__(
        self,
        judge: Judge,
        known: Cache | None = None,
        retry: Retry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.judge, self.known, self.usage = judge, known, Usage()
        self._retry, self._clock = retry or Retry(), clock
        self._pool = ThreadPoolExecutor(judge.info.concurrency, thread_name_prefix="judge")
        self._one = threading.Lock()
        self.expect_answers(threading.Event())

    @property
    def info(self) -> JudgeInfo:
        return self.judge.info

    def expect_answers(self, stop: threading.Event) -> None:
        """A new run begins: a judge that was down, or refused, is asked again.

        Args:
            stop: set where nothing is to be waited for any more.
        """
        with self._one:
            self._unanswered, self._down_until, self._down_because = 0, float("-inf"), ""
            self._ended: Fatal | None = None
            self._stop = stop
            self._pace = Pace(self.info.concurrency, sleep=self._retry.sleep, stop=stop)

    def ask(self, asked: Sequence[Asked]) -> list[Reading]:
        """The readings in the order of what is asked.

        Raises:
            Fatal: nothing more can be asked of the judge. Stopped: the run is to end.
        """
        size = self.info.batch_size
        futures: list[Future[list[Reading]]] = [
            self._pool.submit(self._settle, asked[first : first + size]) for first in range(0, len(asked), size)
        ]
        try:
            return [reading for future in futures for reading in future.result()]
        finally:
            for future in futures:
                future.cancel()

    def _settle(self, asked: Sequence[Asked]) -> list[Reading]:
        questions = [item.question for item in asked]
        readings = self._read(asked, questions)
        again = [k for k, reading in enumerate(readings) if reading.state in _MENDABLE]
        if again:  # one repair: the judge sees its reply, what is wrong with it, and the format once more
            told = [
                replace(questions[k], replied=(readings[k].text, f"{readings[k].reason}. {asked[k].contract.format}"))
                for k in again
            ]
            mended = self._read([asked[k] for k in again], told)
            for k, reading in zip(again, mended, strict=True):
                if reading.state == "ok":
                    first = {"first_reply": readings[k].text}
                    readings[k] = replace(reading, evidence={**reading.evidence, **first})
        self._count(readings)
        return readings

    def _read(self, asked: Sequence[Asked], questions: Sequence[Question]) -> list[Reading]:
        keys = [key_of(self.info, question) for question in questions]
        answers = [self.known.get(key) if self.known else None for key in keys]
        new = [k for k, answer in enumerate(answers) if answer is None]
        for k, fresh in zip(new, self._answers([questions[k] for k in new]), strict=True):
            answers[k] = fresh
        readings = []
        for k, (item, answer) in enumerate(zip(asked, answers, strict=True)):
            assert answer is not None, "every question has an answer by now"
            reading = _unanswered(answer.error) if answer.error else item.contract.read(answer)
            if self.known and k in new and reading.state == "ok":
                self.known.put(keys[k], answer)
            readings.append(reading)
        with self._one:
            self.usage.hits += len(questions) - len(new)
        return readings

    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        if not questions:
            return []
        if self._ended:
            raise self._ended
        if self._clock() < self._down_until:
            error = Transient(f"{self.info.id} does not answer, so it was not asked ({self._down_because})")
            return [Answer(error=error) for _ in questions]
        answered = self._retry.ask(questions, self._call, self._stop)
        with self._one:
            for answer, attempts in answered:
                self.usage.calls += attempts
                self.usage.tokens_in += answer.tokens_in
                self.usage.tokens_out += answer.tokens_out
                self.usage.seconds += answer.latency
                self.usage.cost += answer.cost
                self._notice(answer.error)
        return [answer for answer, _ in answered]

    def _notice(self, error: CallError | None) -> None:
        if not isinstance(error, Transient):
            self._unanswered = 0
            return
        self._unanswered += 1
        if self._unanswered >= _DOWN_AFTER * self.info.concurrency * self.info.batch_size:
            self._down_until, self._down_because = self._clock() + _DOWN_FOR, str(error)

    def _call(self, questions: Sequence[Question], waited: bool) -> list[Answer]:
        answers = self._pace.call(lambda: self.judge.ask(questions), waited)
        if len(answers) != len(questions):
            raise ValueError(f"{self.info.id} gave {len(answers)} answers to {len(questions)} questions")
        for answer in answers:
            if isinstance(answer.error, Fatal):
                self._ended = answer.error
                raise answer.error
        return answers

    def _count(self, readings: Sequence[Reading]) -> None:
        with self._one:
            self.usage.states.update(reading.state for reading in readings)


def _unanswered(error: CallError) -> Reading:
    state: ScoreState = "infra_error"  # the service did not like the question: a setting, or an image that it refuses
    if isinstance(error, Blocked):
        state = "refused"
    elif isinstance(error, Transient | RateLimited):
        state = "transport_error"
    return Reading(state, reason=f"{type(error).__name__}: {error}")


Spec = Named | Mapping[str, Any] | str | Judge | Asker
"""A judge as a scorer is given it: a registered name (with arguments), or an object."""


def opened(judge: Spec | None, wanted_by: str) -> Asker:
    """The one asker of a judge; scorers that name the same one share it.

    Raises:
        UsageError: none is named, or it cannot be built.
    """
    if judge is None:
        raise UsageError(f"{wanted_by} needs a judge: --judge openai:model=NAME,base_url=URL, see `mteval list judges`")
    if isinstance(judge, Asker):
        return judge
    if isinstance(judge, str | Mapping | Named):
        named = Named.model_validate({"name": judge} if isinstance(judge, str) else judge)
        return _named(named.name, json.dumps(named.args, sort_keys=True))
    return Asker(judge, _cache())


@cache
def _named(name: str, arguments: str) -> Asker:
    return Asker(registry.create("judge", name, json.loads(arguments)), _cache())


def _cache() -> Cache | None:
    path = default_path()
    return Cache(path) if path else None
