"""The two tables that the metrics are computed from, and their pivot into arrays.

Both tables may be filtered, joined or read from elsewhere: only their columns count, not the order of their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mteval.cells import Cells
from mteval.estimators import Bools, Ints, Sources
from mteval.sessions import SCORE_STATES, TURN_STATES, ScoreRecord, TurnRecord

Codes = npt.NDArray[np.int8]

_TURN_FIELDS = ("session", "source_id", "protocol", "turn", "repeat", "task_type", "state")
_SCORE_FIELDS = ("session", "protocol", "turn", "repeat", "scorer", "judged")
_TEXT = ("session", "source_id", "protocol", "task_type", "state", "scorer", "part")
_NONE = -1
_OK = 0
_NOT_APPLICABLE = SCORE_STATES.index("not_applicable")


def turn_table(records: Iterable[TurnRecord]) -> pd.DataFrame:
    """One row a turn: session, source_id, protocol, turn, repeat, task_type, state."""
    rows = list(records)
    return _frame({name: [getattr(record, name) for record in rows] for name in _TURN_FIELDS})


def score_table(records: Iterable[ScoreRecord]) -> pd.DataFrame:
    """One row a score and part: session, protocol, turn, repeat, scorer, judged, part, state, value, success.

    ``part`` is empty for the value itself; ``value`` and ``success`` (1.0 or 0.0) are NaN where there is none.
    """
    rows = [(record, part, value) for record in records for part, value in (("", record.value), *record.parts.items())]
    columns: dict[str, list[Any]] = {name: [getattr(row[0], name) for row in rows] for name in _SCORE_FIELDS}
    columns["part"] = [part for _, part, _ in rows]
    columns["state"] = [record.state for record, _, _ in rows]
    columns["value"] = [np.nan if value is None else value for _, _, value in rows]
    columns["success"] = [
        np.nan if part or record.success is None else float(record.success) for record, part, _ in rows
    ]
    return _frame(columns)


def _frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """Text columns are categories: they are coded once, here, and never compared as text again."""
    return pd.DataFrame({name: pd.Categorical(cells) if name in _TEXT else cells for name, cells in columns.items()})


class Grid:
    """A run as arrays on the axes [turn, repeat, session], sessions in the order of their ids.

    Attributes:
        sessions, protocols, task_types, scorers: names, sorted.
        sources: which sessions share a start image.
        turns, repeats: the lengths of the axes.
        types: [turn, session], index into task_types; -1 where a session has no such turn.
        states: protocol -> [turn, repeat, session], index into TURN_STATES; -1 where there is no such turn.
    """

    def __init__(self, turns: pd.DataFrame, scores: pd.DataFrame) -> None:
        self.sessions, session = _coded(turns["session"])
        self.protocols, protocol = _coded(turns["protocol"])
        self.task_types, task_type = _coded(turns["task_type"])
        source_names, source = _coded(turns["source_id"])
        turn, repeat = _numbers(turns["turn"]), _numbers(turns["repeat"])
        self.turns, self.repeats = int(turn.max()), int(repeat.max())
        codes = np.zeros(len(self.sessions), dtype=np.int64)
        codes[session] = source
        self.sources = Sources(codes, len(source_names))
        self.types = np.full((self.turns, len(self.sessions)), _NONE, dtype=np.int16)
        self.types[turn - 1, session] = task_type
        state = _coded(turns["state"], TURN_STATES)[1]
        self.states: dict[str, Codes] = {}
        for index, name in enumerate(self.protocols):
            rows = protocol == index
            found = np.full((self.turns, self.repeats, len(self.sessions)), _NONE, dtype=np.int8)
            found[turn[rows] - 1, repeat[rows] - 1, session[rows]] = state[rows]
            self.states[name] = found
        self._scores = _Scores(scores, self.sessions, self.protocols)
        self.scorers = self._scores.scorers

    @property
    def each_turn(self) -> range:
        """1..T."""
        return range(1, self.turns + 1)

    def exists(self, protocol: str) -> Bools:
        """[turn, repeat, session]: whether there is such a turn."""
        return np.asarray(self.states[protocol] != _NONE)

    def is_last(self, protocol: str) -> Bools:
        """[turn, repeat, session]: whether it is the last turn of its session."""
        exists = self.exists(protocol)
        later = np.zeros_like(exists)
        later[:-1] = exists[1:]
        return exists & ~later

    def parts(self, scorer: str) -> set[str]:
        """The names of the partial values that a scorer gave anywhere, with '' for the value itself."""
        return {""}.union(*(self._scores.parts_of(protocol, scorer) for protocol in self.protocols))

    def verdicts(self, protocol: str, scorer: str) -> Cells:
        """s_{i,t}: 1 where the edit asked for at turn t is done; a unit is a turn."""
        rows = self._scores.rows(protocol, scorer)
        return self._cells(self.states[protocol], rows, rows, "success")

    def sub_verdicts(self, scorer: str, turn: int) -> Cells:
        """Single-shot: whether the image of ``turn`` holds each instruction 1..turn; a unit is an instruction."""
        states = np.repeat(self.states["single-shot"][turn - 1 : turn], turn, axis=0)
        rows = self._scores.rows("single-shot", scorer, turn=turn)
        return self._cells(states, rows, rows, "success")

    def values(self, protocol: str, scorer: str, part: str = "") -> Cells:
        """A scorer's value, or a part of it; a good judgement without that part has nothing to judge there."""
        rows = self._scores.rows(protocol, scorer)
        return self._cells(self.states[protocol], rows, self._scores.rows(protocol, scorer, part), "value")

    def score_states(self, protocol: str, scorer: str) -> dict[str, int]:
        """How many judgements ended in each state."""
        return self._scores.count_states(protocol, scorer)

    def _cells(self, turn_states: Codes, judged: Ints, valued: Ints, column: str) -> Cells:
        """Put the states of the rows ``judged`` and a column of the rows ``valued`` on the axes of ``turn_states``."""
        scores = self._scores
        state = np.full(turn_states.shape, _NONE, dtype=np.int8)
        state[scores.place(judged)] = scores.state[judged]
        values = np.full(turn_states.shape, np.nan)
        values[scores.place(valued)] = getattr(scores, column)[valued]
        ok = turn_states == _OK
        there = ~np.isnan(values)
        known = ok & (state == _OK) & there
        nothing = ok & (state == _NOT_APPLICABLE)
        if valued is not judged:  # a part: it may be there where the whole is not applicable, and the other way round
            judged_well = ok & ((state == _OK) | (state == _NOT_APPLICABLE))
            known, nothing = judged_well & there, judged_well & ~there
        return Cells(np.where(known, values, 0.0), known, (turn_states != _NONE) & ~known & ~nothing)


class _Scores:
    """The columns of a score table as numbers, cut to the sessions and protocols of a grid."""

    def __init__(self, scores: pd.DataFrame, sessions: Sequence[str], protocols: Sequence[str]) -> None:
        session, protocol = _coded(scores["session"], sessions)[1], _coded(scores["protocol"], protocols)[1]
        inside = (session >= 0) & (protocol >= 0)
        if not inside.all():
            scores, session, protocol = scores[inside], session[inside], protocol[inside]
        self.protocols = protocols
        self.scorers, scorer = _coded(scores["scorer"])
        self.parts, part = _coded(scores["part"])
        self.session = session
        self.turn, self.judged, self.repeat = (_numbers(scores[name]) for name in ("turn", "judged", "repeat"))
        self.state = _coded(scores["state"], SCORE_STATES)[1]
        self.value = scores["value"].to_numpy(dtype=np.float64)
        self.success = scores["success"].to_numpy(dtype=np.float64)
        group = ((protocol * len(self.scorers) + scorer) * len(self.parts) + part).astype(np.int16)
        self._order = np.argsort(group, kind="stable")  # a radix sort for 16-bit numbers
        self._groups = group[self._order]

    def rows(self, protocol: str, scorer: str, part: str = "", turn: int | None = None) -> Ints:
        """The rows of a protocol, scorer and part that judge the turn's own instruction, or any of ``turn``."""
        rows = self._all_rows(protocol, scorer, part)
        wanted = self.turn[rows] == (self.judged[rows] if turn is None else turn)
        return rows if wanted.all() else rows[wanted]

    def place(self, rows: Ints) -> tuple[Ints, Ints, Ints]:
        """Where rows go on the axes [unit, repeat, session]."""
        return self.judged[rows] - 1, self.repeat[rows] - 1, self.session[rows]

    def parts_of(self, protocol: str, scorer: str) -> list[str]:
        return [part for part in self.parts if len(self._all_rows(protocol, scorer, part))]

    def count_states(self, protocol: str, scorer: str) -> dict[str, int]:
        counts = np.bincount(self.state[self._all_rows(protocol, scorer, "")], minlength=len(SCORE_STATES))
        return dict(zip(SCORE_STATES, counts.tolist(), strict=True))

    def _all_rows(self, protocol: str, scorer: str, part: str) -> Ints:
        if scorer not in self.scorers or part not in self.parts:
            return np.empty(0, dtype=np.int64)
        code = self.protocols.index(protocol) * len(self.scorers) + self.scorers.index(scorer)
        code = code * len(self.parts) + self.parts.index(part)
        first, last = np.searchsorted(self._groups, np.array([code, code + 1], dtype=np.int16))
        return self._order[first:last]


def _coded(column: pd.Series[Any], names: Sequence[str] | None = None) -> tuple[list[str], Ints]:
    """The sorted names in a column (or ``names``) and each row's index into them, -1 for any other name."""
    categories = column.astype("category").cat
    found: list[str] = categories.categories.tolist()
    codes = categories.codes.to_numpy().astype(np.int64)
    if names is None:
        used = np.bincount(codes, minlength=len(found)) > 0
        names = sorted(name for name, is_used in zip(found, used, strict=True) if is_used)
    index = {name: position for position, name in enumerate(names)}
    positions = np.array([index.get(name, _NONE) for name in found] or [_NONE], dtype=np.int64)
    return list(names), positions[codes]


def _numbers(column: pd.Series[Any]) -> Ints:
    return column.to_numpy(dtype=np.int64)
