"""HTTP around a service: who may ask, how much may be sent, and JSON in every answer but files, also in errors.

Loopback needs no token, because only this machine reaches it. Every other address needs one, so that nobody opens a
service to a network without meaning to.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from itertools import islice
from typing import Any, NamedTuple, Protocol

from mteval.errors import UsageError

_PIECE = 1 << 20
_NAMED = 8  # of the routes, in the answer to a request for another one


class Refused(Exception):
    """A request that is not answered: the HTTP status, one sentence that says why, and further headers."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class File(NamedTuple):
    """An answer that is no JSON: its bytes and what they are."""

    content: bytes
    media_type: str


class Answers(Protocol):
    """What a server answers, without HTTP."""

    @property
    def routes(self) -> Mapping[tuple[str, str], Callable[[bytes], dict[str, Any] | File]]:
        """(method, path) -> the answer to a body, which may raise :class:`Refused`; a GET has an empty one."""
        ...

    def error(self, refused: Refused) -> dict[str, Any]:
        """The body that says why a request is not answered."""
        ...


class RewardServer(ThreadingHTTPServer):
    """A service at an address; :meth:`serve_forever` answers until it is stopped.

    Args:
        port: 0 takes any that is free. token: what requests must carry as ``Authorization: Bearer ...``.
        max_bytes: the largest body that is read. handler: what answers a request.

    Raises:
        UsageError: an address beyond this machine without a token, or one that cannot be had.
    """

    request_queue_size = 128  # the processes of a trainer all ask at once

    def __init__(
        self,
        service: Answers,
        host: str,
        port: int,
        token: str | None,
        max_bytes: int,
        handler: type[Handler] | None = None,
    ) -> None:
        if not token and not is_loopback(host):
            raise UsageError(f"--host {host} can be reached from other machines: give a --token with it")
        self.service, self.token, self.max_bytes = service, token, max_bytes
        try:
            super().__init__((host, port), handler or Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"cannot listen on {host}:{port} ({error}): choose another --port or --host") from error
        self.url = f"http://{host}:{self.server_address[1]}"


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: RewardServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds without a byte from the client

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = self.headers.get("Content-Length", "")
        self._unread = int(length) if length.isdecimal() else 0
        try:
            self.check_sender()
            self._send(HTTPStatus.OK, self._asked_for())
        except Refused as refused:
            self._drop_body()
            self._send(refused.status, self.server.service.error(refused), refused.headers)

    def check_sender(self) -> None:
        """Whether the request comes from one who may ask.

        Raises:
            Refused: it does not.
        """
        if self.server.token and not same(self.headers.get("Authorization", ""), f"Bearer {self.server.token}"):
            raise Refused(HTTPStatus.UNAUTHORIZED, "send the server's token as 'Authorization: Bearer TOKEN'")

    def _asked_for(self) -> dict[str, Any] | File:
        routes = self.server.service.routes
        if answer := routes.get((self.command, self.path)):
            return answer(self._body() if self.command == "POST" else b"")
        known = " or ".join(f"{method} {path}" for method, path in islice(routes, _NAMED))
        raise Refused(HTTPStatus.NOT_FOUND, f"no {self.command} {self.path} here: {known}")

    def _body(self) -> bytes:
        # A web page can make a browser post plain text to this machine, but not JSON.
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send 'Content-Type: application/json'")
        if not self.headers.get("Content-Length", "").isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "send the length of the body as Content-Length")
        if self._unread > self.server.max_bytes:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a body of {self._unread} bytes, but a request may hold {self.server.max_bytes}: send less at once",
            )
        body = self.rfile.read(self._unread)
        self._unread = 0
        return body

    def _drop_body(self) -> None:
        """Read the rest of the body: a connection closed before its end would hide the answer from the client."""
        while self._unread and (piece := self.rfile.read(min(self._unread, _PIECE))):
            self._unread -= len(piece)

    def _send(
        self, status: HTTPStatus, body: Mapping[str, Any] | File, headers: Mapping[str, str] | None = None
    ) -> None:
        content, media_type = body if isinstance(body, File) else _as_json(body)
        try:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            for name, text in (headers or {}).items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError as error:
            self.log_error("the client did not wait for its answer: %s", error)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong, as JSON too."""
        status = HTTPStatus(code)
        self._send(status, self.server.service.error(Refused(status, message or status.phrase)))

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Only what went wrong: a trainer asks many times a minute."""
        if isinstance(code, int) and code >= HTTPStatus.BAD_REQUEST:
            super().log_request(code, size)


def _as_json(body: Mapping[str, Any]) -> File:
    return File(json.dumps(body, allow_nan=False).encode(), "application/json")


def same(given: str, expected: str) -> bool:
    """Compared in constant time, so that the token cannot be guessed letter by letter."""
    return hmac.compare_digest(given.encode(), expected.encode())
