"""Your own sessions: JSON lines with their images, or any dataset that the ``datasets`` library loads.

A line is one session (version 1 of the format)::

    {"schema_version": 1, "id": "kitchen-1", "source": "images/kitchen.jpg", "source_id": "kitchen", "split": "test",
     "turns": [{"instruction": "Make the kettle red", "task_type": "color_alter",
                "slots": {"object": "kettle", "color": "red"}, "reference": "images/kitchen-1-1.png"}]}

``id`` is a word without slashes, ``source`` and ``reference`` are paths of images inside the folder of the file.
``task_type`` is any word of your own. May be left out: ``schema_version`` (1), ``source_id`` (the path of the source:
sessions that share it are one cluster in every interval), ``split`` (``train``, ``validation`` or ``test``, which it
is where nothing is said), ``slots`` (anything that your scorers need), ``reference`` (what the image should look like
after the turn). Teacher-forced needs a reference for every turn of every session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mteval.benchmarks.pictures import File
from mteval.benchmarks.recorded import Entry, Recorded
from mteval.benchmarks.sources import existing
from mteval.benchmarks.tables import Columns, entries, load
from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Session, Turn

SESSIONS = "sessions.jsonl"
"""What the file is called when only its folder is named."""

Split = Literal["train", "validation", "test"]

WORD = r"(?!\.{1,2}$)[^/\\\x00-\x1f]+"
"""What the id of a session may be: one name of a file, because finished images are found by it."""

_MOST_SHOWN = 5


class FileTurn(BaseModel):
    """One turn of a line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instruction: str = Field(pattern=r"\S")
    task_type: str = Field(pattern=r"^\S+$")
    slots: dict[str, Any] = Field(default_factory=dict)
    reference: str | None = Field(default=None, min_length=1)


class FileSession(BaseModel):
    """One line: the format in the docstring of this module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    id: str
    source: str
    source_id: str | None = None
    split: Split = "test"
    turns: tuple[FileTurn, ...] = Field(min_length=1)


class Files(Recorded):
    """Sessions of your own; judged against their references where they have them, else by a vision-language model.

    Args:
        path: a folder with ``sessions.jsonl``, or such a file; its images lie in the same folder or below.
        split: of ``path``, the sessions of this split (None = all); of ``dataset``, the split to load (None = test).
        dataset: instead of ``path``: ``OWNER/NAME`` on the Hugging Face Hub, or a folder that ``datasets`` loads.
        revision: the commit or branch of the dataset.
        id_column, source_column, instruction_column, task_type_column, reference_column, turn_column: of the dataset.
            An instruction column of lists makes a row a session (types and references are lists too); one of texts
            makes a row a turn, and the rows of one id, in the order of the turn column, a session.

    Raises:
        UsageError: neither or both of path and dataset, a line that is not of the format (the first ones are named),
            a path that leaves the folder, an image that is not there, no session of the split.
    """

    def __init__(
        self,
        path: str | None = None,
        split: str | None = None,
        dataset: str | None = None,
        revision: str | None = None,
        id_column: str | None = None,
        source_column: str = "source",
        instruction_column: str = "instruction",
        task_type_column: str | None = None,
        reference_column: str | None = None,
        turn_column: str | None = None,
    ) -> None:
        if (path is None) == (dataset is None):
            raise UsageError(
                "benchmark 'files' needs --benchmark-args path=FOLDER (write one with `mteval bench init FOLDER`) or "
                "dataset=OWNER/NAME"
            )
        if path is not None:
            found = list(read(existing(path, "folder or .jsonl file of sessions"), split))
            named = split or ""
        else:
            columns = Columns(
                id=id_column,
                source=source_column,
                instruction=instruction_column,
                task_type=task_type_column,
                reference=reference_column,
                turn=turn_column,
            )
            found = list(entries(load(str(dataset), split or "test", revision), columns))
            named = f"{str(dataset).rpartition('/')[2]}-{split or 'test'}"
        super().__init__("files", found, scorers_for(found), variant=named)


def scorers_for(found: list[Entry]) -> tuple[str, ...]:
    """The scorers that any session can have: against its references where it has them, else by a judge."""
    complete = all(len(entry.references) == len(entry.session.turns) and all(entry.references) for entry in found)
    return ("reference-psnr",) if complete else ("vlm-if", "vlm-cc")


def read(path: Path, split: str | None = None) -> Iterator[Entry]:
    """The sessions of a file, or of the ``sessions.jsonl`` of a folder.

    Raises:
        UsageError: what is wrong with the first lines that are wrong.
    """
    if split is not None and split not in get_args(Split):
        raise UsageError(f"there is no split '{split}': {nearest(split, list(get_args(Split)))}")
    file = path / SESSIONS if path.is_dir() else path
    try:
        lines = file.read_text("utf-8-sig").split("\n")  # a text may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    problems, kept = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            kept.append(FileSession.model_validate(json.loads(line)))
        except (ValueError, ValidationError) as error:
            problems.append(f"line {number}: {_first(error)}")
            continue
        problems += [f"line {number}: {problem}" for problem in _faults(file.parent, kept[-1])]
    if problems:
        more = f" (and {len(problems) - _MOST_SHOWN} more)" if len(problems) > _MOST_SHOWN else ""
        raise UsageError(f"{file}: {'; '.join(problems[:_MOST_SHOWN])}{more}")
    return (_entry(file.parent, session) for session in kept if split in (None, session.split))


def _first(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return f"not JSON ({error})"
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _faults(folder: Path, session: FileSession) -> list[str]:
    """What the format's types do not say: the id, and where the images are."""
    faults = (
        [] if re.fullmatch(WORD, session.id) else [f"id '{session.id}' must be the name of a file, without slashes"]
    )
    for name in (session.source, *(turn.reference for turn in session.turns if turn.reference)):
        fault = fault_of_path(folder, name)
        faults += [fault] if fault else []
    return faults


def fault_of_path(folder: Path, name: str) -> str | None:
    """Why ``name`` is no file inside ``folder``; None where it is one."""
    pure = PurePosixPath(name)
    inside = (folder / name).resolve().is_relative_to(folder.resolve())
    if pure.is_absolute() or Path(name).is_absolute() or not inside:
        return f"'{name}' leaves the folder {folder}"
    return None if (folder / name).is_file() else f"there is no file '{name}' in {folder}"


def _entry(folder: Path, told: FileSession) -> Entry:
    turns = tuple(Turn(turn.instruction, turn.task_type, turn.slots) for turn in told.turns)
    session = Session(told.id, told.source_id or told.source, turns)
    references = tuple(File(folder, turn.reference) if turn.reference else None for turn in told.turns)
    return Entry(session, File(folder, told.source), references)
