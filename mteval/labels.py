"""Labels of turns: what people say of them, from a CSV, or what an exact scorer says, from its scores.

The CSV has a line a label: ``session, turn, label`` (1 or 0; empty = not told), and where they are not the usual ones
``protocol`` (free-running), ``repeat`` (1), ``judged`` (the turn) and ``labeller``. Of several people the majority
counts; a tie is no label.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from mteval.errors import UsageError
from mteval.sessions import ScoreKey, ScoreRecord

COLUMNS = ("session", "protocol", "turn", "repeat", "judged", "label", "labeller")
_NEEDED = ("session", "turn", "label")
WORDS = {"1": True, "1.0": True, "yes": True, "true": True, "0": False, "0.0": False, "no": False, "false": False}
"""What a label may be, in small letters."""

Labels = Mapping[tuple[str, str, int, int, int], bool]
"""(session, protocol, turn, repeat, judged) -> done or not."""


def read(path: Path) -> Labels:
    """The labels of a CSV.

    Raises:
        UsageError: no such file, or a line that cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    missing = [name for name in _NEEDED if not rows or name not in rows[0]]
    if missing:
        raise UsageError(f"{path} needs the columns {', '.join(_NEEDED)}, it lacks {', '.join(missing)}")
    said: dict[tuple[str, str, int, int, int], list[bool]] = defaultdict(list)
    for number, row in enumerate(rows, start=2):
        word = (row["label"] or "").strip().lower()
        if not word:
            continue
        if word not in WORDS:
            raise UsageError(f"{path}, line {number}: label '{row['label']}' must be 1 or 0, or empty")
        try:
            turn = int(row["turn"])
            numbers = turn, int(row.get("repeat") or 1), int(row.get("judged") or turn)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: turn, repeat and judged must be whole numbers") from error
        said[row["session"], row.get("protocol") or "free-running", *numbers].append(WORDS[word])
    return {key: 2 * sum(votes) > len(votes) for key, votes in said.items() if 2 * sum(votes) != len(votes)}


def of_scorer(records: Iterable[ScoreRecord], scorer: str) -> Labels:
    """The verdicts of one scorer."""
    mine = (record for record in records if record.scorer == scorer)
    return {_key(record.key): record.success for record in mine if record.success is not None}


def _key(key: ScoreKey) -> tuple[str, str, int, int, int]:
    return key.session, key.protocol, key.turn, key.repeat, key.judged
