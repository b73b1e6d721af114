"""Asking a server of ours: JSON there and back, straight to its address."""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

from mteval.services import check_printable, masked

TOKEN = "MTEVAL_TOKEN"
"""The environment variable of the server's token: an argument would be written down in run.json."""

_CONNECTIONS: dict[str, type[http.client.HTTPConnection]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}


class NoAnswer(Exception):
    """The server could not be reached, broke down, or said what cannot be read."""


class Answer(NamedTuple):
    """What the server said."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def said(self) -> Any:
        """The ``error`` of a refusal in JSON, None where there is none."""
        try:
            return json.loads(self.content)["error"]
        except (ValueError, KeyError, TypeError):
            return None


class Address:
    """Connections go straight to the server, past proxies and without redirects, so the token goes nowhere else.

    Args:
        url: like http://127.0.0.1:8765. timeout: seconds to wait for an answer.

    Raises:
        ValueError: it is no such URL, or no such time.
    """

    def __init__(self, url: str, timeout: float) -> None:
        found = re.fullmatch(r"(https?)://([^/?#@\s]+)(/[^?#\s]*)?", str(url))
        if not found:
            raise ValueError(f"url is like http://127.0.0.1:8765, not {url}")
        if timeout <= 0:
            raise ValueError("timeout is in seconds, above 0")
        self.url, self.timeout = str(url).rstrip("/"), timeout
        self._connection, self._at, self._path = _CONNECTIONS[found[1]], found[2], (found[3] or "").rstrip("/")

    def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """One request, with the token that the environment holds.

        Raises:
            NoAnswer: the server could not be reached, or went away.
            UsageError: the token is none that can be sent.
        """
        headers = {"Content-Type": "application/json"}
        token = os.environ.get(TOKEN, "")
        if token:
            check_printable(token, TOKEN)
            headers["Authorization"] = f"Bearer {token}"
        try:
            with closing(self._connection(self._at, timeout=self.timeout)) as connection:
                connection.request(method, self._path + path, body, headers)
                response = connection.getresponse()
                # Some quote the token, when they refuse it or elsewhere. Latin-1 gives every byte back as it was.
                content = masked(response.read().decode("latin-1"), token, "[token]").encode("latin-1")
                reason = masked(response.reason, token, "[token]")
                return Answer(response.status, reason, dict(response.headers), content)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"no answer from {self.url} ({type(error).__name__}: {error})") from error
