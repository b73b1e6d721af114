"""Tables of verdicts for the tests of metrics: from arrays [session, turn, repeat] of small codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mteval.metrics import score_table, turn_table
from mteval.scorers.base import Measure
from mteval.sessions import ScoreRecord, ScoreState, TurnRecord

FAILURE, SUCCESS, JUDGE_ERROR, NOT_APPLICABLE, NO_IMAGE, NO_SCORE, NO_TURN = 0, 1, 2, 3, 4, 5, 6
MISSING = (JUDGE_ERROR, NO_IMAGE, NO_SCORE)

FREE, FORCED, SINGLE = "free-running", "teacher-forced", "single-shot"
FOLLOWING: dict[str, Measure] = {"if": "instruction_following"}
BOTH: dict[str, Measure] = {**FOLLOWING, "cc": "content_consistency"}

Verdicts = npt.NDArray[np.int_]


def turn_record(session: str, protocol: str, turn: int, repeat: int = 1, **other: Any) -> TurnRecord:
    fields: dict[str, Any] = {"source_id": session, "task_type": "color_alter", "state": "ok"}
    fields |= {"instruction": "make it red", "seed": 0, "input": None, "image": None, "error": None, "slice": 1}
    return TurnRecord(session=session, protocol=protocol, turn=turn, repeat=repeat, **(fields | other))


def score_record(session: str, protocol: str, turn: int, repeat: int = 1, **other: Any) -> ScoreRecord:
    fields: dict[str, Any] = {"scorer": "if", "judged": turn, "state": "ok", "value": None, "success": None}
    fields |= {"parts": {}, "reason": "", "evidence": {}, "scoring_version": 1}
    return ScoreRecord(session=session, protocol=protocol, turn=turn, repeat=repeat, **(fields | other))


def tables(
    verdicts: Mapping[str, Verdicts], types: Sequence[Sequence[str]] | None = None, per_source: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turn and score table of the scorer ``if`` from protocol -> codes [session, turn, repeat]."""
    turns, scores = [], []
    states: dict[int, ScoreState] = {JUDGE_ERROR: "infra_error", NOT_APPLICABLE: "not_applicable"}
    for protocol, codes in verdicts.items():
        for (session, turn, repeat), code in np.ndenumerate(codes):
            if code == NO_TURN:
                continue
            name = f"s{session:03d}"
            key = (name, protocol, turn + 1, repeat + 1)
            task_type = types[session][turn] if types else "color_alter"
            state = "failed" if code == NO_IMAGE else "ok"
            source = f"i{session // per_source:03d}"
            turns.append(turn_record(*key, source_id=source, task_type=task_type, state=state))
            if code in (FAILURE, SUCCESS):
                scores.append(score_record(*key, value=float(code), success=bool(code)))
            elif code in states:
                scores.append(score_record(*key, state=states[int(code)]))
    return turn_table(turns), score_table(scores)


def row(table: pd.DataFrame, metric: str, turn: int | None = None, protocol: str = FREE, task_type: str = "all") -> Any:
    """The one row of a metrics table."""
    rows = table[(table.metric == metric) & (table.protocol == protocol) & (table.task_type == task_type)]
    rows = rows[rows.turn.isna() if turn is None else rows.turn == turn]
    assert len(rows) == 1, f"{len(rows)} rows of {metric} at turn {turn}"
    return rows.iloc[0]
