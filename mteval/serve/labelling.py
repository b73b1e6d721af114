"""The labelling tool: one turn at a time, blind to the model and to every verdict, and each answer on disk at once.

What the browser gets of a turn is its instruction, the image before and the image after, and a number. Which session it
is, who made it and what any judge said stays here. Turns that look the same (the first one, which protocols share) are
asked about once.
"""

from __future__ import annotations

import base64
import csv
import fcntl
import hashlib
import io
import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mteval.errors import UsageError
from mteval.labels import COLUMNS, WORDS
from mteval.serve.server import File, Refused
from mteval.serve.view import MEDIA
from mteval.sessions import PROTOCOLS, TurnRecord

if TYPE_CHECKING:
    from mteval.store import RunFolder

Key = tuple[str, str, int, int, int]
"""(session, protocol, turn, repeat, judged), as in :data:`mteval.labels.Labels`."""

WRITTEN = {1: "1", 0: "0", None: ""}
"""What an answer is in the CSV: done, not done, cannot tell."""

_SINGLE = PROTOCOLS[2]


class Question(NamedTuple):
    """What is asked once: an instruction, the content hashes of two images, and every turn that this is."""

    instruction: str
    before: str
    after: str
    keys: list[Key]


class Book:
    """The CSV of labels, which several people may write to at once.

    Args:
        path: of the file, which need not be there yet.

    Raises:
        UsageError: it cannot be read or written, or lacks a column.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with self._open() as file:
                self._read(file)
        except OSError as error:
            raise UsageError(f"cannot write to {path}: {error.strerror}; choose another --labels") from error

    def rows(self) -> list[dict[str, str]]:
        """Every line, oldest first."""
        with self._open() as file:
            return self._read(file)[1]

    def append(self, keys: Sequence[Key], word: str, labeller: str) -> None:
        """Add one answer, a line a turn, in one write."""
        with self._open() as file:
            names, _ = self._read(file)
            file.seek(0)
            content = file.read()
            torn = "\n" if content and not content.endswith(b"\n") else ""
            rows = [_row(key, word, labeller) for key in keys]
            file.write((torn + _written(names, rows, head=not content.strip())).encode())
            file.flush()
            os.fsync(file.fileno())

    def take_back(self, keys: Sequence[Key], labeller: str) -> None:
        """Remove what a labeller said of some turns; the file is the old or the new one at any moment."""
        gone = set(keys)
        with self._open() as file:
            names, rows = self._read(file)
            kept = [row for row in rows if not (row.get("labeller") == labeller and _key(row) in gone)]
            new = self.path.with_name(f"{self.path.name}.partial")
            new.write_text(_written(names, kept, head=True), "utf-8")
            new.replace(self.path)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """The file, for this process alone: what another one has replaced in the meantime is opened again."""
        while True:
            with open(self.path, "a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_ino == os.stat(self.path).st_ino:
                    yield file
                    return

    def _read(self, file: BinaryIO) -> tuple[list[str], list[dict[str, str]]]:
        """The columns and the lines."""
        file.seek(0)
        try:
            table = csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"), newline=""))
            names, rows = list(table.fieldnames or COLUMNS), list(table)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"cannot read {self.path}: {error}; choose another --labels") from error
        if missing := [name for name in COLUMNS if name not in names]:
            raise UsageError(f"{self.path} lacks the columns {', '.join(missing)}: add them or choose another --labels")
        return names, rows


class Labelling:
    """What the labelling page asks and is told.

    Args:
        run: whose turns are labelled; those that have an image.
        book: where the answers go. labeller: whose they are. seed: of the order.

    Raises:
        UsageError: the run has no such turn.
    """

    def __init__(self, run: RunFolder, book: Book, labeller: str, seed: int = 0) -> None:
        self._run, self._book, self._labeller = run, book, labeller
        records = run.turn_records()
        self.questions = questions(records, seed)
        if not self.questions:
            raise UsageError(f"{run.path} has no turn with an image yet: nothing to label")
        self._places = {key: number for number, question in enumerate(self.questions) for key in question.keys}
        first = {question.keys[0][:4] for question in self.questions}  # what was asked once counts once
        self._about = {record.key: (record.source_id, record.task_type) for record in records if record.key in first}
        self._one = threading.Lock()
        page = _page().encode()
        self._routes: dict[tuple[str, str], Callable[[bytes], dict[str, Any] | File]] = {
            ("GET", "/"): lambda _: File(page, MEDIA[".html"]),
            ("GET", "/question"): partial(self._tell, lambda _: self._now()),
            ("POST", "/answer"): partial(self._tell, self._answered),
            ("POST", "/undo"): partial(self._tell, self._undone),
            ("GET", "/favicon.ico"): lambda _: File(b"", "image/x-icon"),
        }

    @property
    def routes(self) -> Mapping[tuple[str, str], Callable[[bytes], dict[str, Any] | File]]:
        """The page; ``/question`` is the first that this labeller has not answered."""
        return self._routes

    def error(self, refused: Refused) -> dict[str, Any]:
        """Why a request is not answered."""
        return {"error": str(refused)}

    def done(self) -> list[int]:
        """The questions that this labeller has answered, oldest answer first."""
        mine = (row for row in self._book.rows() if row.get("labeller") == self._labeller)
        keys = (key for row in mine if (key := _key(row)) in self._places)
        return list(dict.fromkeys(self._places[key] for key in keys if key))

    def agreement(self) -> list[str]:
        """A sentence for each two people in the file; see :func:`agreement`."""
        return agreement(self._book.rows(), self._about)

    def _tell(self, act: Callable[[bytes], dict[str, Any]], body: bytes) -> dict[str, Any]:
        try:
            return act(body)
        except (OSError, UsageError) as error:
            # The path of an image has the model's name in it: it is for the terminal, not for the page.
            print(f"mteval: {error}", file=sys.stderr)
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "a file cannot be used: see the terminal") from error

    def _now(self) -> dict[str, Any]:
        done = set(self.done())
        told: dict[str, Any] = {"done": len(done), "total": len(self.questions), "labeller": self._labeller}
        number = next((number for number in range(len(self.questions)) if number not in done), None)
        if number is None:
            return {**told, "question": None, "agreement": self.agreement()}
        question = self.questions[number]
        before, after = (_png(self._run, content) for content in (question.before, question.after))
        return {**told, "question": number, "instruction": question.instruction, "before": before, "after": after}

    def _answered(self, body: bytes) -> dict[str, Any]:
        told = _fields(body)
        number, label = told.get("question"), told.get("label")
        if type(number) is not int or not 0 <= number < len(self.questions):
            raise Refused(HTTPStatus.BAD_REQUEST, "question must be the number of one")
        if not (label is None or (type(label) is int and label in WRITTEN)):
            raise Refused(HTTPStatus.BAD_REQUEST, "label must be 1, 0 or null")
        with self._one:
            if number not in self.done():  # another window may have been quicker
                self._book.append(self.questions[number].keys, WRITTEN[label], self._labeller)
            return self._now()

    def _undone(self, _: bytes) -> dict[str, Any]:
        with self._one:
            done = self.done()
            if done:
                self._book.take_back(self.questions[done[-1]].keys, self._labeller)
            return self._now()


def questions(records: Sequence[TurnRecord], seed: int) -> list[Question]:
    """What is asked of the turns that have an image, in an order that only the seed and the turns decide.

    The order does not depend on how many turns there are, so that it stays while a run goes on. Single-shot is asked
    the instruction of its turn alone, as the other protocols have it; where none has it, only its first turn is asked.
    """
    alone = {(r.session, r.turn): r.instruction for r in records if r.protocol != _SINGLE or r.turn == 1}
    found: dict[tuple[str, str, str], Question] = {}
    for record in sorted(records, key=lambda record: record.key):
        instruction = alone.get((record.session, record.turn))
        if record.state != "ok" or not record.input or not record.image or instruction is None:
            continue
        key = (record.session, record.protocol, record.turn, record.repeat, record.turn)
        look = (instruction, record.input, record.image)
        found.setdefault(look, Question(*look, [])).keys.append(key)
    return sorted(found.values(), key=lambda one: hashlib.sha256(f"{seed}{one.keys[0]}".encode()).digest())


def agreement(rows: Sequence[Mapping[str, str]], about: Mapping[Any, tuple[str, str]]) -> list[str]:
    """How far each two people agree on the turns of a run that both labelled 1 or 0, a sentence a pair.

    Args:
        rows: of the CSV; of two lines of a person on one turn the later one counts.
        about: of the turns of the run, (session, protocol, turn, repeat) -> source_id, task type.
    """
    import pandas as pd

    from mteval import calibration

    said: dict[str, dict[Key, float]] = defaultdict(dict)
    for row in rows:
        key, word = _key(row), (row["label"] or "").strip().lower()
        if key is not None and key[:4] in about and word in WORDS:
            said[row["labeller"] or "unnamed"][key] = float(WORDS[word])
    told = []
    for one, other in combinations(sorted(said), 2):
        both = sorted(said[one].keys() & said[other].keys())
        if not both:
            told.append(f"{one} and {other} have no labelled turn in common")
            continue
        lines = [
            (key[0], about[key[:4]][0], "", key[1], key[2], about[key[:4]][1], said[one][key], said[other][key])
            for key in both
        ]
        columns = ["session", "source_id", "model", "protocol", "turn", "task_type", "judged", "label"]
        found = calibration.against_labels(pd.DataFrame(lines, columns=columns))
        overall = found[found["group"] == "all"].set_index("measure")
        share, kappa = (_interval(overall.loc[name], scale) for name, scale in (("agreement", 100), ("kappa", 1)))
        told.append(f"{one} and {other} on {len(both)} turns: agreement {share} %, kappa {kappa}")
    return told


def _interval(row: Any, scale: int) -> str:
    """An estimate with its interval, as far as there are any."""
    if row["value"] != row["value"]:
        return "undefined (one of them gave one answer throughout)"
    digits = 0 if scale == 100 else 2
    value, low, high = (f"{scale * row[name]:.{digits}f}" for name in ("value", "low", "high"))
    return value if row["low"] != row["low"] else f"{value} [{low}, {high}]"


def _page() -> str:
    from markupsafe import Markup

    from mteval.report import html

    environment = html.templates()
    return environment.get_template("label/page.html").render(
        title="Labelling · mteval",
        style=Markup(html.file_of(environment, "style.css") + html.file_of(environment, "label/label.css")),
        scripts=[Markup(html.file_of(environment, "label/label.js"))],
    )


def _png(run: RunFolder, content: str) -> str:
    """The pixels of an image and nothing else that its file may tell, as an address."""
    buffer = io.BytesIO()
    image = run.image(content)
    image.info = {}
    image.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _fields(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error
    if not isinstance(told, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the body must be an object")
    return told


def _row(key: Key, word: str, labeller: str) -> dict[str, str]:
    session, protocol, turn, repeat, judged = key
    cells = (session, protocol, str(turn), str(repeat), str(judged), word, labeller)
    return dict(zip(COLUMNS, cells, strict=True))


def _key(row: Mapping[str, str]) -> Key | None:
    """Of a line of the CSV; None where it is none, as a line that was cut."""
    try:
        turn = int(row["turn"])
        numbers = turn, int(row.get("repeat") or 1), int(row.get("judged") or turn)
    except (ValueError, TypeError):
        return None
    return (row["session"], row.get("protocol") or PROTOCOLS[0], *numbers)


def _written(names: Sequence[str], rows: Sequence[Mapping[str, str]], *, head: bool) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore", restval="")
    if head:
        table.writeheader()
    table.writerows(rows)
    return text.getvalue()
