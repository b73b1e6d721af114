"""The site of runs over HTTP while they go on: built from the records as they stand, and nothing written to a run.

The site is made in a temporary folder, and a request only picks one of the names that it is known to hold. Each state
of the records has an address of its own, because a page that is open numbers its sessions as they were then.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mteval.errors import UsageError
from mteval.serve.server import File, Handler, Refused, RewardServer, is_loopback, same
from mteval.sessions import ScoreRecord, TurnRecord
from mteval.store import METRICS, ROLLOUTS, RUN, SCORES, SESSIONS, RunFolder

if TYPE_CHECKING:
    import pandas as pd

Routes = Mapping[tuple[str, str], Callable[[bytes], dict[str, Any] | File]]

MEDIA = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".webp": "image/webp"}

_RECORDS = (ROLLOUTS, SCORES)
_MEANING = (*_RECORDS, RUN, SESSIONS, METRICS)
_LEAST_WAIT = 3.0  # seconds between two questions of a page whether there is more
_SHARE = 5  # a page asks again after so many times what building took
_KEPT = 2  # builds: what is on the page, and what it is about to become


class Growing(RunFolder):
    """A run as its records stand when this is made, whoever is writing to them.

    Its metrics are those of metrics.json where that file is of these records, else the same ones computed from them.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._config = super().config
        scores = super().score_records()  # before the turns: a score is recorded after what it judges
        self._turn_records = super().turn_records()
        known = {record.key for record in self._turn_records}
        self._score_records = [score for score in scores if score.key[:4] in known]
        self._is_summed_up = self._newest(METRICS) >= self._newest(*_RECORDS, SESSIONS)

    @property
    def config(self) -> dict[str, Any]:
        return self._config

    def turn_records(self) -> list[TurnRecord]:
        return self._turn_records

    def score_records(self) -> list[ScoreRecord]:
        return self._score_records

    def metrics(self) -> pd.DataFrame:
        """The metrics table of what is there."""
        from mteval import metrics

        if self._is_summed_up:
            return super().metrics()
        return metrics.of_records(self._turn_records, self._score_records, self.config["scorers"])

    def _newest(self, *names: str) -> int:
        """When the last of some files was written; 0 = none is there."""
        return max((stat[1] for name in names if (stat := _stat(self.path / name))), default=0)


class View:
    """The site of runs, built again when it is asked for and the records have changed.

    Args:
        paths: of run folders.

    Raises:
        UsageError: one of them is no run folder.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [RunFolder(path).path for path in paths]
        self._one = threading.Lock()
        self._seconds = 0.0
        self._builds: dict[str, tuple[TemporaryDirectory[str], Routes]] = {}
        self._routes: Routes = {}
        self._join()

    @property
    def routes(self) -> Routes:
        """``/`` leads to the page as it stands; ``/version`` tells an open page whether there is more."""
        return self._routes

    def error(self, refused: Refused) -> dict[str, Any]:
        """Why a request is not answered."""
        return {"error": str(refused)}

    def close(self) -> None:
        """Remove what was built."""
        for folder, _ in self._builds.values():
            folder.cleanup()

    def version(self) -> str:
        """Changes with the records of any run."""
        stats = [_stat(path / name) for path in self._paths for name in _MEANING]
        return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]

    def records(self) -> int:
        """Lines of turns and scores, those of all runs."""
        files = (path / name for path in self._paths for name in _RECORDS)
        return sum(file.read_bytes().count(b"\n") for file in files if file.is_file())

    def _join(self) -> None:
        built = [routes for _, routes in self._builds.values()]
        fixed: Routes = {("GET", "/"): self._page, ("GET", "/version"): self._asked, ("GET", "/favicon.ico"): _no_icon}
        self._routes = {key: answer for routes in (fixed, *built) for key, answer in routes.items()}

    def _page(self, _: bytes) -> dict[str, Any]:
        with self._one:
            version = self.version()
            if version not in self._builds:
                self._build(version)
        raise Refused(HTTPStatus.FOUND, "the page as it stands", {"Location": f"/{version}/"})

    def _asked(self, _: bytes) -> File:
        """A script, because the page's policy lets it fetch nothing."""
        wait = max(_LEAST_WAIT, _SHARE * self._seconds)
        told = json.dumps([self.version(), self.records(), round(1000 * wait)])
        return File(f"heard(...{told});\n".encode("ascii"), MEDIA[".js"])

    def _build(self, version: str) -> None:
        from mteval.report import site

        begun = time.monotonic()
        folder = TemporaryDirectory(prefix="mteval-view-")
        records = self.records()
        try:
            site.write([Growing(path) for path in self._paths], Path(folder.name))
        except (UsageError, OSError) as error:
            folder.cleanup()
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, f"the runs cannot be read now: {error}") from error
        self._builds[version] = folder, self._files(version, records, Path(folder.name))
        while len(self._builds) > _KEPT:
            self._builds.pop(next(iter(self._builds)))[0].cleanup()
        self._seconds = time.monotonic() - begun
        self._join()

    def _files(self, version: str, records: int, folder: Path) -> Routes:
        """Every file of a site by its address, and the page with the script that asks for more."""
        from mteval.report import html, site

        routes: dict[tuple[str, str], Callable[[bytes], File]] = {}
        for path in folder.rglob("*.*"):
            routes["GET", f"/{version}/{path.relative_to(folder).as_posix()}"] = partial(_read, path)
        page, end = (folder / site.PAGE).read_text("utf-8"), "</body>"
        before, _, after = page.rpartition(end)
        live = f'<script src="live.js"></script>\n{end}'
        script = html.file_of(html.templates(), "site/live.js")
        script = script.replace("VERSION", json.dumps(version)).replace("RECORDS", str(records))
        routes["GET", f"/{version}/"] = partial(_answer, File(f"{before}{live}{after}".encode(), MEDIA[".html"]))
        routes["GET", f"/{version}/live.js"] = partial(_answer, File(script.encode(), MEDIA[".js"]))
        return routes


class PageHandler(Handler):
    """Answers a browser: the token is a password there, and no other site may look in or send anything."""

    def check_sender(self) -> None:
        token = self.server.token
        if token and not _has_token(self.headers.get("Authorization", ""), token):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "the password is the server's token, the user any name",
                {"WWW-Authenticate": 'Basic realm="mteval", charset="UTF-8"'},
            )
        # A name of another site that was made to mean this machine would have that site's scripts read the pages.
        if not token and not is_loopback(_name_of(self.headers.get("Host", ""))):
            raise Refused(HTTPStatus.FORBIDDEN, "ask for this machine by its own name: 127.0.0.1 or localhost")
        left = self.path.count("/") == 2 and self.path.endswith("/")
        if self.command == "GET" and left and ("GET", self.path) not in self.server.service.routes:
            raise Refused(HTTPStatus.FOUND, "that state of the runs is gone", {"Location": "/"})

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Frame-Options", "DENY")
        super().end_headers()


def page_server(service: Any, host: str, port: int, token: str | None) -> RewardServer:
    """A server of pages; its largest body is an answer of the labelling page."""
    return RewardServer(service, host, port, token, 1 << 16, PageHandler)


def _has_token(given: str, token: str) -> bool:
    kind, _, told = given.partition(" ")
    if kind != "Basic":
        return same(given, f"Bearer {token}")
    try:
        _, _, password = b64decode(told, validate=True).decode().partition(":")
    except ValueError:  # no base64, or no text in it
        return False
    return same(password, token)


def _name_of(host: str) -> str:
    """The name in a Host header, '' where it has none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _stat(path: Path) -> tuple[int, int] | None:
    """Size, and when it was written; None where there is no such file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _read(path: Path, _: bytes) -> File:
    try:
        return File(path.read_bytes(), MEDIA[path.suffix])
    except FileNotFoundError as error:  # its build was replaced a moment ago
        raise Refused(HTTPStatus.NOT_FOUND, "that state of the runs is gone: load the page again") from error


def _answer(file: File, _: bytes) -> File:
    return file


def _no_icon(_: bytes) -> File:
    return File(b"", "image/x-icon")
