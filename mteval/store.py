"""The run folder: the one place that reads it, and the only code that writes to it.

========================= ==========================================================================================
file                      holds
========================= ==========================================================================================
``run.json``              configuration, identity, versions, hardware, clock
``sessions.json``         ids of the sessions that the last command was about; records of others stay but are not read
``rollouts.jsonl``        one :class:`~mteval.sessions.TurnRecord` a line
``scores.jsonl``          one :class:`~mteval.sessions.ScoreRecord` a line
``timing.jsonl``          one :class:`Timing` a line: what differs from run to run
``judging.jsonl``         one :class:`Judging` a line: what each pass of scoring asked of a judge
``images/ab/abcd....png`` inputs and outputs, named by the SHA-256 of their bytes
``metrics.json`` ...      what is derived from the above when a run ends
========================= ==========================================================================================

The record files are append-only while a run goes on and the last line of a key wins. :meth:`RunWriter.canonicalise`
then puts them in **key order** (session id, protocol, turn, repeat, ...) with one line a key, so that the bytes do
not depend on how often the run was interrupted. Whatever is not a record is written to a temporary name and renamed:
after a kill at any moment each file is the old or the new one, but for a torn last line of a record file, which the
next writer cuts.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import math
import os
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeVar

from mteval.errors import UsageError
from mteval.sessions import SCHEMA_VERSION, ScoreKey, ScoreRecord, TurnKey, TurnRecord

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

RUN = "run.json"
SESSIONS = "sessions.json"
ROLLOUTS = "rollouts.jsonl"
SCORES = "scores.jsonl"
TIMING = "timing.jsonl"
JUDGING = "judging.jsonl"
IMAGES = "images"
METRICS = "metrics.json"
LEADERBOARD = "leaderboard.csv"
COSTS = "costs.csv"
REPORT = "report.html"

_TEMPORARY = ".partial"
_FLOATS = ("value", "low", "high", "worst", "best")  # columns of the metrics table

Record = TurnRecord | ScoreRecord


@dataclass(frozen=True, slots=True)
class Timing:
    """One line of timing.jsonl: what a call cost. Every call that was made has a line, repeated calls too.

    Attributes:
        session, protocol, turn, repeat: the turn it was made for (turn 1, which the protocols share: the first of
            them).
        latency: seconds. cost: US dollars. attempts: how often it was asked. clock: ISO 8601, UTC.
    """

    session: str
    protocol: str
    turn: int
    repeat: int
    latency: float
    cost: float
    attempts: int
    clock: str


@dataclass(frozen=True, slots=True)
class Judging:
    """One line of judging.jsonl.

    Attributes:
        judge: its id. calls: made, retries too. hits: of the cache, which cost nothing.
        seconds: of the calls, one after the other. cost: US dollars. clock: ISO 8601, UTC.
    """

    judge: str
    calls: int
    hits: int
    tokens_in: int
    tokens_out: int
    seconds: float
    cost: float
    clock: str


Line = TypeVar("Line", TurnRecord, ScoreRecord, Timing, Judging)


def encode(record: TurnRecord | ScoreRecord | Timing | Judging) -> str:
    """The JSON line of a record, without its newline.

    Raises:
        TypeError, ValueError: a field is not JSON-able, or is infinite or NaN.
    """
    body = {item.name: getattr(record, item.name) for item in fields(record)}
    return json.dumps(
        {"schema_version": SCHEMA_VERSION, **body},
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
        default=_plain,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


class RunFolder:
    """A run as the reports read it.

    Raises:
        UsageError: ``path`` is no run folder, is damaged, or was written by a newer mteval.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not (self.path / RUN).is_file():
            raise UsageError(f"{self.path} is not a run folder: it has no {RUN}")

    @property
    def config(self) -> dict[str, Any]:
        """run.json, see :func:`mteval.evaluation.execute` for its keys."""
        return self._read_json(RUN)

    def turn_records(self) -> list[TurnRecord]:
        """The last record of every key, in key order, of the sessions that the run is about."""
        wanted = self._sessions()
        return [record for record in self._turns().values() if record.session in wanted]

    def score_records(self) -> list[ScoreRecord]:
        """The same for scores."""
        wanted = self._sessions()
        return [record for record in self._scores().values() if record.session in wanted]

    def timings(self) -> list[Timing]:
        """Every call that was made, in the order of the calls."""
        return self._lines(TIMING, Timing)

    def judgings(self) -> list[Judging]:
        """What judges were asked, in the order of the passes."""
        return self._lines(JUDGING, Judging)

    def image_path(self, content: str) -> Path:
        """Where the PNG of a content hash lies."""
        return self.path / IMAGES / content[:2] / f"{content}.png"

    def image(self, content: str) -> Image:
        """The stored image of a content hash, decoded."""
        from PIL import Image

        with Image.open(self.image_path(content)) as stored:
            return stored.convert("RGB")

    def metrics(self) -> pd.DataFrame:
        """The metrics table of metrics.json.

        Raises:
            UsageError: the run has not come to its end yet.
        """
        import pandas as pd

        if not (self.path / METRICS).is_file():
            raise UsageError(f"{self.path} has no {METRICS} yet: finish it with the same `mteval run` command")
        payload = self._read_json(METRICS)
        table = pd.DataFrame(payload["rows"], columns=payload["columns"])
        return table.astype({"turn": "Int64", **dict.fromkeys(_FLOATS, "float64")})

    def _sessions(self) -> frozenset[str]:
        return frozenset(self._read_json(SESSIONS)["sessions"])

    def _turns(self) -> dict[TurnKey, TurnRecord]:
        return _last_of_each(self._lines(ROLLOUTS, TurnRecord))

    def _scores(self) -> dict[ScoreKey, ScoreRecord]:
        return _last_of_each(self._lines(SCORES, ScoreRecord))

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            payload: dict[str, Any] = json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {self.path / name}: {error}") from error
        self._check_schema(payload, name)
        return payload

    def _lines(self, name: str, of: type[Line]) -> list[Line]:
        path = self.path / name
        if not path.is_file():
            return []
        found = []
        names = [item.name for item in fields(of)]
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                body = json.loads(line)
                self._check_schema(body, name)
                found.append(of(**{key: body[key] for key in names if key in body}))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path}, line {number} is damaged ({error!r}): delete the line and resume") from error
        return found

    def _check_schema(self, body: Mapping[str, Any], name: str) -> None:
        version = body.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{self.path / name} has schema_version {version}, this mteval reads {SCHEMA_VERSION}: "
                "use the mteval that wrote it"
            )


class Kept:
    """An image of a run: in its folder, or in memory and on its way there.

    Args:
        content: its hash, or what becomes it. image: decoded; None = read it when it is looked at.
    """

    def __init__(self, folder: RunFolder, content: str | Future[str], image: Image | None = None) -> None:
        self._folder, self._content, self._image = folder, content, image

    @property
    def content(self) -> str:
        """The content hash, once the image is on disk."""
        if not isinstance(self._content, str):
            self._content = self._content.result()
        return self._content

    @property
    def image(self) -> Image:
        """The pixels."""
        if self._image is None:
            self._image = self._folder.image(self.content)
        return self._image


def _last_of_each(records: Iterable[Any]) -> dict[Any, Any]:
    last = {record.key: record for record in records}
    return {key: last[key] for key in sorted(last)}


class RunWriter(RunFolder):
    """The one process that writes to a run folder, from opening to :meth:`close`.

    Opening creates the folder, locks it, cuts a torn last line and removes half-written files of a killed run. A
    folder in which nothing was started is removed again on closing.

    Raises:
        UsageError: the folder cannot be written, or another process is at work in it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise UsageError(f"cannot write to {self.path}: {error.strerror}; choose another --output") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise UsageError(
                f"another mteval is at work in {self.path}: wait for it, or choose another --output"
            ) from error
        try:
            for left in self.path.rglob(f"*{_TEMPORARY}"):
                left.unlink()
            for name in (ROLLOUTS, SCORES, TIMING, JUDGING):
                _cut_torn_line(self.path / name)
            self.turns = super()._turns()
            self.scores = super()._scores()
        except BaseException:
            os.close(self._lock)
            raise
        self._one = threading.RLock()  # several sessions may be at work: one of them writes at a time
        # One thread: more of them take from the one that runs the model what they gain.
        self._behind = ThreadPoolExecutor(1, thread_name_prefix="store")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _turns(self) -> dict[TurnKey, TurnRecord]:
        return _last_of_each(self.turns.values())

    def _scores(self) -> dict[ScoreKey, ScoreRecord]:
        return _last_of_each(self.scores.values())

    def close(self) -> None:
        """Unlock the folder, when what is still being written behind is written."""
        self._behind.shutdown()
        if not any(self.path.iterdir()):
            self.path.rmdir()
        os.close(self._lock)

    @property
    def started(self) -> bool:
        """Whether an earlier command has begun this run."""
        return (self.path / RUN).is_file()

    def start(self, config: Mapping[str, Any], sessions: Sequence[str]) -> None:
        """Write run.json and sessions.json."""
        self.write_json(SESSIONS, {"sessions": list(sessions)})
        self.write_json(RUN, config)

    def put_images(self, images: Sequence[Image]) -> list[str]:
        """Store images and return their content hashes; all are on disk on return."""
        return [kept.content for kept in self.keep(images)]

    def keep(self, images: Sequence[Image]) -> list[Kept]:
        """Begin to store images, which must not be changed any more."""
        for image in images:
            image.load()  # what is read at its first use may be used by two at once
        return [Kept(self, self._behind.submit(self._put_image, image), image) for image in images]

    def behind(self, write: Callable[[], None]) -> Future[None]:
        """Begin to write while others go on: images and writes are stored in the order in which they were begun."""
        return self._behind.submit(write)

    def _put_image(self, image: Image) -> str:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_type=zlib.Z_RLE)  # as small for photos, in a quarter of the default's time
        encoded = buffer.getvalue()
        content = hashlib.sha256(encoded).hexdigest()
        path = self.image_path(content)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._replace(path, encoded)
        return content

    def append_turns(self, records: Sequence[TurnRecord], timings: Sequence[Timing]) -> None:
        """Record one batch call; its images are stored already. What was spent is noted before what was got."""
        with self._one:
            if timings:
                self._append(TIMING, timings)
            self._append(ROLLOUTS, records)
            self.turns.update((record.key, record) for record in records)

    def append_scores(self, records: Sequence[ScoreRecord]) -> None:
        """Record judgements, all lines in one write."""
        with self._one:
            self._append(SCORES, records)
            self.scores.update((record.key, record) for record in records)

    def append_judging(self, passes: Sequence[Judging]) -> None:
        """Record what judges were asked, where they were."""
        asked = [one for one in passes if one.calls or one.hits]
        if asked:
            self._append(JUDGING, asked)

    def _append(self, name: str, records: Sequence[TurnRecord | ScoreRecord | Timing | Judging]) -> None:
        with open(self.path / name, "ab") as file:
            file.write("".join(f"{encode(record)}\n" for record in records).encode())

    def drop_turns(self, keys: Collection[TurnKey]) -> None:
        """Forget turns, and before them the scores of them."""
        self.drop_scores(lambda record: record.key[:4] in keys)
        self.turns = {key: record for key, record in self.turns.items() if key not in keys}
        self._write_records(ROLLOUTS, self.turns)

    def drop_scores(self, unwanted: Callable[[ScoreRecord], bool]) -> None:
        """Forget the scores that ``unwanted`` picks."""
        with self._one:
            kept = {key: record for key, record in self.scores.items() if not unwanted(record)}
            if len(kept) < len(self.scores):
                self.scores = kept
                self._write_records(SCORES, kept)

    def canonicalise(self) -> None:
        """Put the record files in key order with one line a key, and remove images that no record names."""
        self._write_records(ROLLOUTS, self.turns)
        self._write_records(SCORES, self.scores)
        named = {content for record in self.turns.values() for content in (record.input, record.image)}
        for path in (self.path / IMAGES).glob("*/*.png"):
            if path.stem not in named:
                path.unlink()
        for folder in (self.path / IMAGES).glob("*/"):
            if not any(folder.iterdir()):
                folder.rmdir()

    def write_metrics(self, table: pd.DataFrame) -> None:
        """Write metrics.json; NaN becomes null."""
        rows = [
            [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in row]
            for row in table.astype(object).where(table.notna(), None).to_numpy().tolist()
        ]
        self.write_json(METRICS, {"columns": [str(name) for name in table.columns], "rows": rows})

    def write_costs(self) -> None:
        """Write costs.csv: calls, seconds and dollars of the editor by protocol, and of each judge."""
        spent: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
        for timing in self.timings():
            row = spent[timing.protocol]
            row[0] += timing.attempts
            row[1] += timing.latency
            row[2] += timing.cost
        for judging in self.judgings():
            row = spent[f"judge {judging.judge}"]
            row[0] += judging.calls
            row[1] += judging.seconds
            row[2] += judging.cost
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["what", "calls", "seconds", "dollars"])
        for what, (calls, seconds, dollars) in sorted(spent.items()):
            table.writerow([what, calls, f"{seconds:.3f}", f"{dollars:.4f}"])
        self.write_text(COSTS, text.getvalue())

    def write_json(self, name: str, payload: Mapping[str, Any]) -> None:
        """Write a JSON file, its schema_version first."""
        body = {"schema_version": SCHEMA_VERSION, **{k: v for k, v in payload.items() if k != "schema_version"}}
        self.write_text(name, json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a whole file through a temporary name."""
        self._replace(self.path / name, text.encode())

    def write_with(self, name: str, write: Callable[[Path], None]) -> None:
        """Let ``write`` make a whole file under a temporary name, then put it in place."""
        partial = self.path / f"{name}{_TEMPORARY}"
        write(partial)
        partial.replace(self.path / name)

    def _write_records(self, name: str, records: Mapping[Any, Record]) -> None:
        self.write_text(name, "".join(f"{encode(records[key])}\n" for key in sorted(records)))

    def _replace(self, path: Path, content: bytes) -> None:
        partial = path.with_name(f"{path.name}{_TEMPORARY}")
        partial.write_bytes(content)
        partial.replace(path)


def _cut_torn_line(path: Path) -> None:
    """Cut what follows the last newline: the line that a killed process was writing."""
    if path.is_file():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with open(path, "r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def save_table(table: pd.DataFrame, to: Path | TextIO) -> None:
    """Write a table as CSV."""
    table.to_csv(to, index=False)


def check_writable(path: Path) -> None:
    """Refuse a run folder that cannot be made or written, or that holds something else, without making it.

    Raises:
        UsageError: the folder, or its nearest existing parent, is a file or is read-only; or there are files in it that
            are no run, among which a run would tidy up.
    """
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "it is read-only" if existing.is_dir() else "it is not a folder"
        raise UsageError(f"cannot write to {path}: {existing} cannot hold it ({reason}); choose another --output")
    if path.is_dir() and not (path / RUN).is_file():
        # What a run that was killed before its run.json was whole may have left.
        foreign = [entry.name for entry in path.iterdir() if entry.name != SESSIONS and entry.suffix != _TEMPORARY]
        if foreign:
            raise UsageError(f"{path} holds other files ({foreign[0]}, ...) and no run: choose another --output")
