"""Sessions out of a table of the ``datasets`` library: a row a session, or a row a turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mteval.benchmarks.pictures import Cell, Picture
from mteval.benchmarks.recorded import Entry
from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Session, Turn


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what.

    Where ``instruction`` holds a list, a row is a session, and ``task_type``, ``reference`` and those of ``slots`` hold
    lists of the same length. Where it holds a text, a row is a turn: the rows of one ``id`` are a session, in the order
    of ``turn``, and its first row has the source.

    Attributes:
        id: names the session; None = the number of the row.
        turn: order of the turns of a session; None = that of the rows.
        task_type: None = every turn is of the type ``edit``.
        reference: the image after the turn; None = there are none.
        slots: name of a slot -> column with its value.
    """

    id: str | None
    source: str
    instruction: str
    task_type: str | None = None
    reference: str | None = None
    turn: str | None = None
    slots: Mapping[str, str] | None = None

    @property
    def texts(self) -> list[str]:
        """All but those of images."""
        named = (self.id, self.instruction, self.task_type, self.turn, *(self.slots or {}).values())
        return [column for column in named if column is not None]

    @property
    def images(self) -> list[str]:
        return [column for column in (self.source, self.reference) if column is not None]


def load(where: str | Path, split: str, revision: str | None = None, files: str | None = None) -> Any:
    """A split of a dataset.

    Args:
        where: ``OWNER/NAME`` on the Hugging Face Hub, or a folder of a layout that the library knows.
        files: pattern of the files of this split, so that no other is fetched or read; None = the library finds them.

    Raises:
        UsageError: the library is not installed, or cannot load it.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError("this benchmark needs the datasets library: pip install 'mteval[hub]'") from error
    chosen = {} if files is None else {"data_files": {split: files}, "verification_mode": "no_checks"}
    try:
        return datasets.load_dataset(str(where), split=split, revision=revision, **chosen)
    except Exception as error:  # the errors of whatever reads its files or talks to the hub
        raise UsageError(f"cannot load {where}, split {split} ({type(error).__name__}: {error})") from error


def entries(table: Any, columns: Columns) -> Iterator[Entry]:
    """The sessions of a table, in the order of their first rows.

    Raises:
        UsageError: a column is missing or holds something else.
    """
    known = list(table.column_names)
    for column in (*columns.texts, *columns.images):
        if column not in known:
            raise UsageError(f"the dataset has no column '{column}': {nearest(column, known)}")
    for column in columns.images:
        if "Image(" not in str(table.features[column]):
            raise UsageError(f"column '{column}' of the dataset holds no images but {table.features[column]}")
    texts = table.select_columns(columns.texts).to_list()
    groups: dict[str, list[int]] = {}
    for row, line in enumerate(texts):
        groups.setdefault(str(row if columns.id is None else line[columns.id]), []).append(row)
    for id, rows in groups.items():
        if isinstance(texts[rows[0]][columns.instruction], list):
            if len(rows) > 1:
                raise UsageError(f"session '{id}' is told twice, in the rows {rows[0]} and {rows[1]}")
            yield _row_a_session(table, columns, id, rows[0], texts[rows[0]])
        else:
            if columns.turn is not None:
                rows = sorted(rows, key=lambda row: texts[row][columns.turn])
            yield _row_a_turn(table, columns, id, rows, texts)


def _row_a_session(table: Any, columns: Columns, id: str, row: int, line: Mapping[str, Any]) -> Entry:
    asked = line[columns.instruction]
    lists = {name: line[column] for name, column in (columns.slots or {}).items()}
    types = ["edit"] * len(asked) if columns.task_type is None else line[columns.task_type]
    for column, values in (*lists.items(), (columns.task_type, types)):
        if not isinstance(values, list) or len(values) != len(asked):
            raise UsageError(f"row {row}: column '{column}' does not hold a list of {len(asked)}, one a turn")
    turns = [
        _turn(text, kind, {name: values[k] for name, values in lists.items()}, f"row {row}, turn {k + 1}")
        for k, (text, kind) in enumerate(zip(asked, types, strict=True))
    ]
    references: list[Picture | None] = []
    if columns.reference is not None:
        references = [Cell(table, row, columns.reference, k) for k in range(len(asked))]
    return Entry(Session(id, id, tuple(turns)), Cell(table, row, columns.source), tuple(references))


def _row_a_turn(
    table: Any, columns: Columns, id: str, rows: Sequence[int], texts: Sequence[Mapping[str, Any]]
) -> Entry:
    turns = []
    for row in rows:
        line = texts[row]
        slots = {name: line[column] for name, column in (columns.slots or {}).items()}
        kind = "edit" if columns.task_type is None else line[columns.task_type]
        turns.append(_turn(line[columns.instruction], kind, slots, f"row {row}"))
    reference = columns.reference
    references = () if reference is None else tuple(Cell(table, row, reference) for row in rows)
    return Entry(Session(id, id, tuple(turns)), Cell(table, rows[0], columns.source), references)


def _turn(instruction: Any, task_type: Any, slots: dict[str, Any], where: str) -> Turn:
    if not isinstance(instruction, str) or not instruction.strip():
        raise UsageError(f"{where}: the instruction is {instruction!r}, not a text")
    if not isinstance(task_type, str) or not task_type:
        raise UsageError(f"{where}: the task type is {task_type!r}, not a text")
    return Turn(instruction, task_type, slots)
