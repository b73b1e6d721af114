"""The scores of a scorer that runs elsewhere: the client of ``mteval serve``."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from pydantic import ValidationError

from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.serve.wire import Health, ScoreReply, sentence, write_request

TOKEN = "MTEVAL_TOKEN"
"""The environment variable of the server's token: an argument would be written down in run.json."""
WAITS = (0.5, 2.0)
"""Seconds before each further try of a request that found no server, or not its answer."""

_CONNECTIONS: dict[str, type[http.client.HTTPConnection]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}

T = TypeVar("T")


class NoAnswer(Exception):
    """The server could not be reached, broke down, or said what cannot be read."""


class Refused(Exception):
    """The server says what is wrong with the request."""


class HttpScorer:
    """One scorer behind ``mteval serve``; what it measures, its range and its scoring version are the server's.

    Its id is ``http/`` and the id of the served scorer, whatever the address: the values are the same, but a run may
    hold both, and a run that was judged here is not to be continued by a server that may be of another version.

    Connections go straight to the server, past proxies and without redirects, so the token goes nowhere else.

    Args:
        url: the address that ``mteval serve`` prints.
        scorer: which of the served ones; not needed where there is only one.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str, scorer: str | None = None, timeout: float = 120) -> None:
        found = re.fullmatch(r"(https?)://([^/?#@\s]+)(/[^?#\s]*)?", str(url))
        if not found:
            raise ValueError(f"url is like http://127.0.0.1:8765, not {url}")
        if timeout <= 0:
            raise ValueError("timeout is in seconds, above 0")
        self._url = str(url).rstrip("/")
        self._connection, self._at, self._path = _CONNECTIONS[found[1]], found[2], (found[3] or "").rstrip("/")
        self._name, self._timeout = scorer, timeout

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
        headers = {"Content-Type": "application/json"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        try:
            with closing(self._connection(self._at, timeout=self._timeout)) as connection:
                connection.request(method, self._path + path, body, headers)
                response = connection.getresponse()
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"no answer from {self._url} ({type(error).__name__}: {error})") from error
        if response.status >= 500:
            raise NoAnswer(f"{self._url} answers {response.status} {response.reason}")
        if response.status != 200:
            raise Refused(f"{response.status}, {_said(content) or response.reason}")
        try:
            return read(content)
        except ValidationError as error:
            raise NoAnswer(f"{self._url} does not answer like mteval serve ({sentence(error)})") from error


def _said(content: bytes) -> str:
    """The server's own words about a refusal."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
