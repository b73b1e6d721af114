"""The scores of a scorer that runs elsewhere: the client of ``mteval serve``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from pydantic import ValidationError

from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.serve.client import TOKEN, Address, NoAnswer
from mteval.serve.wire import Health, ScoreReply, sentence, write_request

WAITS = (0.5, 2.0)
"""Seconds before each further try of a request that found no server, or not its answer."""

T = TypeVar("T")


class Refused(Exception):
    """The server says what is wrong with the request."""


class HttpScorer:
    """One scorer behind ``mteval serve``; what it measures, its range and its scoring version are the server's.

    Its id is ``http/`` and the id of the served scorer, whatever the address: the values are the same, but a run may
    hold both, and a run that was judged here is not to be continued by a server that may be of another version.

    Args:
        url: the address that ``mteval serve`` prints.
        scorer: which of the served ones; not needed where there is only one.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str, scorer: str | None = None, timeout: float = 120) -> None:
        self._address, self._name = Address(url, timeout), scorer
        self._url = self._address.url

    @property
    def info(self) -> ScorerInfo:
        """The served scorer's, under the id of this one.

        Raises:
            UsageError: the server does not answer, or does not serve the scorer.
        """
        return replace(self._served, id=f"http/{self._served.id}")

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        """One request for as many views as the server takes at once; what finds no answer is a ``transport_error``."""
        size = self._health.max_batch
        chunks = [batch[first : first + size] for first in range(0, len(batch), size)]
        return [score for chunk in chunks for score in self._score(chunk)]

    @cached_property
    def _health(self) -> Health:
        try:
            return self._ask("GET", "/health", None, Health.model_validate_json)
        except NoAnswer as error:
            raise UsageError(f"{error}: start `mteval serve` there, or mend url=") from error
        except Refused as error:
            raise UsageError(f"{self._url} answers {error}: set {TOKEN} to its token, or mend url=") from error

    @cached_property
    def _served(self) -> ScorerInfo:
        known = self._health.scorers
        if self._name is None and len(known) != 1:
            raise UsageError(f"{self._url} serves {', '.join(known)}: choose one with scorer=")
        name = next(iter(known)) if self._name is None else self._name
        if name not in known:
            raise UsageError(f"{self._url} serves no '{name}': {nearest(name, list(known))}")
        return known[name]

    def _score(self, views: Sequence[TurnView]) -> list[Score]:
        request = write_request(self._served.id, views)

        def read(content: bytes) -> list[Score]:
            reply = ScoreReply.model_validate_json(content)
            if len(reply.scores) != len(views):
                raise NoAnswer(f"{self._url} gave {len(reply.scores)} scores for {len(views)} turns")
            if reply.scoring_version != self._served.scoring_version:
                now = f"scoring version {reply.scoring_version}, not {self._served.scoring_version} as at the start"
                raise Refused(f"{self._url} has {now}")
            return reply.scores

        try:
            return self._ask("POST", "/score", request, read)
        except NoAnswer as error:
            return [Score("transport_error", reason=str(error)) for _ in views]

    def _ask(self, method: str, path: str, body: bytes | None, read: Callable[[bytes], T]) -> T:
        """Ask again after each of WAITS.

        Raises:
            NoAnswer: the last time too. Refused: at once, for the same request would be refused again.
        """
        for wait in WAITS:
            try:
                return self._ask_once(method, path, body, read)
            except NoAnswer:
                time.sleep(wait)
        return self._ask_once(method, path, body, read)

    def _ask_once(self, method: str, path: str, body: bytes | None, read: Callable[[bytes], T]) -> T:
        answer = self._address.ask(method, path, body)
        if answer.status >= 500:
            raise NoAnswer(f"{self._url} answers {answer.status} {answer.reason}")
        if answer.status != 200:
            raise Refused(f"{answer.status}, {answer.said or answer.reason}")
        try:
            return read(answer.content)
        except ValidationError as error:
            raise NoAnswer(f"{self._url} does not answer like mteval serve ({sentence(error)})") from error
