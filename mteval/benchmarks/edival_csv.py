"""EdiVal's instructions file: read as published, checked for its structure, and counted.

A row (image, t) lists the turns 1..t of an image's session, so a session of three turns has three rows, which tell the
pools of objects after each of its turns. Columns: ``image_index``, ``turns``, ``task_type``, ``instructions``,
``format_instructions`` (lists of t strings), ``bg_consistency`` (False from the first background change on),
``unchanged_objects`` (of the first image, never touched and still there after turn t), ``available_objects`` (there
after turn t), ``all_objects`` (ever there). Lists are Python literals.
"""

from __future__ import annotations

import ast
import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mteval.benchmarks.edival_format import TASK_TYPES, parsed
from mteval.errors import UsageError

_LISTS = ("task_type", "instructions", "format_instructions", "unchanged_objects", "available_objects", "all_objects")
_BY_TURN = _LISTS[:3]
_COLUMNS = ("image_index", "turns", "bg_consistency", *_LISTS)


@dataclass(frozen=True, slots=True)
class Row:
    """What one turn of a session asks for, and what is there after it.

    Attributes:
        form: the instruction with its slots in [brackets].
    """

    turn: int
    task_type: str
    instruction: str
    form: str
    bg_consistency: bool
    unchanged_objects: tuple[str, ...]
    available_objects: tuple[str, ...]
    all_objects: tuple[str, ...]


def read(path: Path) -> dict[int, list[Row]]:
    """The turns of every image, in order of image and turn.

    Raises:
        UsageError: it is not a file of this structure; says where it first is not.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            lacking = [column for column in _COLUMNS if column not in (table.fieldnames or [])]
            if lacking:
                raise UsageError(f"{path} is not EdiVal's instructions file: it has no column {', '.join(lacking)}")
            lines = [(table.line_num, _plain(line, f"{path}, line {table.line_num}")) for line in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV: {error}") from error
    told: dict[int, dict[int, tuple[int, dict[str, Any]]]] = {}
    for number, line in lines:
        rows = told.setdefault(line["image_index"], {})
        if line["turns"] in rows:
            raise UsageError(f"{path}, line {number}: image {line['image_index']} has turn {line['turns']} twice")
        rows[line["turns"]] = number, line
    return {image: _session(path, image, told[image]) for image in sorted(told)}


def _plain(line: Mapping[str, str], where: str) -> dict[str, Any]:
    """The values of one line by column, as numbers, truth values and lists of texts."""
    found: dict[str, Any] = {}
    for column in _COLUMNS:
        try:
            found[column] = ast.literal_eval(line[column])
        except (ValueError, SyntaxError, TypeError) as error:
            raise UsageError(f"{where}: {column} is not a Python literal") from error
        expected = list if column in _LISTS else bool if column == "bg_consistency" else int
        texts = found[column] if isinstance(found[column], list) else []
        if type(found[column]) is not expected or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"{where}: {column} is not {'a list of texts' if expected is list else expected.__name__}")
    for column in _BY_TURN:
        if len(found[column]) != found["turns"]:
            raise UsageError(f"{where}: {len(found[column])} {column} for {found['turns']} turns")
    return found


def _session(path: Path, image: int, rows: Mapping[int, tuple[int, dict[str, Any]]]) -> list[Row]:
    longest = max(rows)
    if sorted(rows) != list(range(1, longest + 1)):
        raise UsageError(f"{path}: image {image} has rows for the turns {sorted(rows)}, not for each of 1..{longest}")
    whole = rows[longest][1]
    for turn, (number, line) in rows.items():
        if any(line[column] != whole[column][:turn] for column in _BY_TURN):
            raise UsageError(f"{path}, line {number}: not the first {turn} turns of image {image}")
    return [
        Row(
            turn=turn,
            task_type=line["task_type"][-1],
            instruction=line["instructions"][-1],
            form=line["format_instructions"][-1],
            bg_consistency=line["bg_consistency"],
            unchanged_objects=tuple(line["unchanged_objects"]),
            available_objects=tuple(line["available_objects"]),
            all_objects=tuple(line["all_objects"]),
        )
        for turn, (_, line) in sorted(rows.items())
    ]


def fingerprints(sessions: Mapping[int, Sequence[Row]]) -> dict[str, Any]:
    """Counts that tell whether a file is the published one, and whether it was read right (:data:`PUBLISHED`).

    A tuple with one number a turn counts turns 1, 2, 3 ...
    """
    rows = [row for session in sessions.values() for row in session]
    longest = max((row.turn for row in rows), default=0)
    slots = [(row, parsed(row.task_type, row.form, row.instruction)) for row in rows]
    quoted = [row for row in rows if '"' in row.instruction]
    whole = [row for row in quoted if row.instruction.startswith('"') and row.instruction.endswith('"')]
    inner = [row for row in quoted if row not in whole]
    kept = [len(found["kept_objects"]) for _, found in slots if "kept_objects" in found]
    last = [len(session[-1].all_objects) for session in sessions.values()]

    def by_turn(chosen: Sequence[Row]) -> tuple[int, ...]:
        return tuple(sum(row.turn == turn for row in chosen) for turn in range(1, longest + 1))

    same = [row for row in rows if row.bg_consistency]
    counts = Counter(found["count"] for _, found in slots if "count" in found)
    return {
        "sessions": len(sessions),
        "rows": len(rows),
        "image_index": (min(sessions, default=0), max(sessions, default=0)),
        **{name: by_turn([row for row in rows if row.task_type == name]) for name in TASK_TYPES},
        "bg_consistency": by_turn(same),
        "bg_consistency and unchanged_objects": by_turn([row for row in same if row.unchanged_objects]),
        "additions with, without a place": _split(slots, "subject_add", "direction"),
        "texts replaced, added": _split(slots, "text_change", "old_text"),
        "counts asked for": dict(sorted(counts.items())),
        "sessions that repeat a type": sum(len({row.task_type for row in s}) < len(s) for s in sessions.values()),
        "instructions all in double quotes": dict(sorted(Counter(row.task_type for row in whole).items())),
        "instructions with other double quotes": dict(sorted(Counter(row.task_type for row in inner).items())),
        "rows without all_objects": sum(not row.all_objects for row in rows),
        "all_objects after the last turn, mean": round(sum(last) / len(last), 2) if last else 0,
        "objects that a background keeps, mean": round(sum(kept) / len(kept), 2) if kept else 0,
        "objects that a background keeps, most": max(kept, default=0),
        "background changes that name none": [
            (image, row.turn)
            for image, session in sessions.items()
            for row in session
            if row.task_type == "background_change"
            and "kept_objects" not in parsed(row.task_type, row.form, row.instruction)
        ],
    }


def _split(slots: Sequence[tuple[Row, Mapping[str, Any]]], task_type: str, slot: str) -> tuple[int, int]:
    """How many turns of a type have a slot, and how many have not."""
    having = [slot in found for row, found in slots if row.task_type == task_type]
    return sum(having), len(having) - sum(having)


PUBLISHED: Mapping[str, Any] = {
    "sessions": 572,
    "rows": 1716,
    "image_index": (0, 605),
    "subject_add": (67, 77, 93),
    "subject_remove": (75, 69, 61),
    "subject_replace": (54, 57, 55),
    "material_alter": (66, 50, 72),
    "color_alter": (56, 73, 57),
    "text_change": (64, 70, 54),
    "position_change": (52, 63, 48),
    "count_change": (73, 58, 60),
    "background_change": (65, 55, 72),
    "bg_consistency": (507, 452, 380),
    "bg_consistency and unchanged_objects": (453, 354, 261),
    "additions with, without a place": (218, 19),
    "texts replaced, added": (23, 165),
    "counts asked for": {3: 65, 4: 56, 5: 70},
    "sessions that repeat a type": 8,
    "instructions all in double quotes": {"count_change": 90, "position_change": 92},
    "instructions with other double quotes": {"background_change": 2, "material_alter": 8},
    "rows without all_objects": 0,
    "all_objects after the last turn, mean": 5.42,
    "objects that a background keeps, mean": 3.26,
    "objects that a background keeps, most": 10,
    "background changes that name none": [(129, 3), (232, 3), (259, 3), (305, 2), (336, 3), (340, 2), (443, 1)],
}
"""Of the published file."""
