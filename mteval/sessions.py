"""The plain typed data of an evaluation: what flows from benchmark to report.

benchmark -> :class:`Session` -> :class:`TurnRecord` (one a turn of a rollout) -> :class:`ScoreRecord` -> metrics.

Nothing here imports torch, pandas or an image library; the records are what the JSON lines of a run folder hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

SCHEMA_VERSION = 1

Protocol = Literal["free-running", "teacher-forced", "single-shot"]
PROTOCOLS: tuple[Protocol, ...] = ("free-running", "teacher-forced", "single-shot")

TurnState = Literal["ok", "blocked", "failed", "skipped", "not_run"]
TURN_STATES: tuple[TurnState, ...] = ("ok", "blocked", "failed", "skipped", "not_run")

ScoreState = Literal["ok", "not_applicable", "parse_error", "truncated", "refused", "transport_error", "infra_error"]
SCORE_STATES: tuple[ScoreState, ...] = (
    "ok",
    "not_applicable",
    "parse_error",
    "truncated",
    "refused",
    "transport_error",
    "infra_error",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One instruction of a session.

    Attributes:
        instruction: what the user asks, one sentence without its closing full stop.
        task_type: one of the benchmark's task types, for example ``color_alter``.
        slots: what the instruction names, JSON-able (object, attribute, value, place).
        target: the benchmark's own description of the reference state after this turn; opaque to everything but
            the benchmark and its scorers. None where a benchmark has no reference states.
    """

    instruction: str
    task_type: str
    slots: Mapping[str, Any] = field(default_factory=dict)
    target: Any = None


@dataclass(frozen=True, slots=True)
class Session:
    """A start image I_0 and an ordered list of turns.

    Attributes:
        id: unique in its benchmark and split, stable for a seed.
        source_id: names the start image; sessions that share it are one cluster in every interval.
        turns: turn 1 is ``turns[0]``.
        start: the benchmark's own description of I_0; opaque like :attr:`Turn.target`.
    """

    id: str
    source_id: str
    turns: tuple[Turn, ...]
    start: Any = None


class TurnKey(NamedTuple):
    """What a turn's record is found by; the canonical order of rollouts.jsonl is the order of these."""

    session: str
    protocol: str
    turn: int
    repeat: int


class ScoreKey(NamedTuple):
    """What a score's record is found by. ``judged`` is the instruction looked at (1..turn), see ScoreRecord."""

    session: str
    protocol: str
    turn: int
    repeat: int
    scorer: str
    judged: int


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One line of rollouts.jsonl: what the editor made of one turn.

    Attributes:
        session, source_id, protocol, turn, repeat: the key, and the cluster of the session. Turns count from 1.
        task_type, instruction: copied from the turn (single-shot: the joined instruction), so a run reads alone.
        state: ``ok`` has an image; every other state has none and says why in ``error``.
        seed: the seed given to the editor, None where nothing was asked of it.
        input, image: content hashes of the input and the output PNG in the run folder's image store.
        error: ``"Type: message"`` of the typed editor error, None when ok.
        slice: how many sessions the batch of this call was drawn from (see rollout.py: the unit of repetition).
        dialogue: what a stateful editor goes on from at the next turn.

    Clock readings and costs live in timing.jsonl, because they differ from run to run.
    """

    session: str
    source_id: str
    protocol: str
    turn: int
    repeat: int
    task_type: str
    instruction: str
    state: TurnState
    seed: int | None
    input: str | None
    image: str | None
    error: str | None
    slice: int
    dialogue: str | None = None

    @property
    def key(self) -> TurnKey:
        return TurnKey(self.session, self.protocol, self.turn, self.repeat)


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """One line of scores.jsonl: one scorer's judgement of one turn of a rollout.

    Attributes:
        judged: which instruction is judged, 1..turn. It equals ``turn`` but for single-shot, where the one image of
            turn t is judged once for every sub-instruction 1..t.
        state: ``ok`` has a value; no other state has one (a failure is a state, never a number).
        value: in the scorer's own range, None unless ok.
        success: s_{i,t} where the scorer declares a threshold, else None.
        parts: named partial values of the same judgement (``object``, ``background`` ...); absent = not applicable.
        reason: one sentence a person can read.
        evidence: JSON-able facts behind it (boxes, the judge's words).
        scoring_version: of the scorer that wrote the line.
    """

    session: str
    protocol: str
    turn: int
    repeat: int
    scorer: str
    judged: int
    state: ScoreState
    value: float | None
    success: bool | None
    parts: Mapping[str, float]
    reason: str
    evidence: Mapping[str, Any]
    scoring_version: int

    @property
    def key(self) -> ScoreKey:
        return ScoreKey(self.session, self.protocol, self.turn, self.repeat, self.scorer, self.judged)
