"""The contract of a scorer: rates a turn of a rollout, and never knows which editor made the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from mteval.sessions import ScoreState

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.judges.asking import Asker
    from mteval.sessions import Session, Turn

Measure = Literal[
    "instruction_following",
    "content_consistency",
    "visual_quality",
    "reference_psnr",
    "survival",
    "collapse",
    "trajectory",
]
VERDICTS: frozenset[Measure] = frozenset({"instruction_following", "survival", "collapse"})
"""What is measured by success or failure, not by the value."""
FREE_RUNNING_ONLY: frozenset[Measure] = frozenset({"survival", "collapse", "trajectory"})
"""What has no metric under another protocol, so that no judge is asked there."""


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """What a scorer measures and how its numbers read.

    Attributes:
        id: its registry name.
        measures: which family of metrics its scores feed (metrics.py). ``visual_quality`` gives the quality of I_0 as
            the part ``source``; a success of ``survival`` means that the turn survives, one of ``collapse`` that it IS
            collapsed.
        low, high: the range of a value; an end may be infinite. [0, 1] for ``content_consistency``, parts too.
        success_threshold: value >= threshold is a success; None where success means nothing.
        scope: ``turn``, or ``session`` for a scorer that sees a whole rollout at once (``trajectory``): it is asked at
            the last turn of a free-running session only, where the view shows the earlier turns in ``history``.
        scoring_version: raised whenever a score changes its meaning.
        concurrency: sessions that may be judged side by side; above 1 only where the work is done elsewhere.
        revision: of the models behind it, which pins what its arguments leave open; empty where there are none.
    """

    id: str
    measures: Measure
    low: float
    high: float
    success_threshold: float | None = None
    scope: Literal["turn", "session"] = "turn"
    scoring_version: int = 1
    concurrency: int = 1
    revision: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields by name; an infinite end of the range is null."""
        infinite = {name: None for name in ("low", "high") if math.isinf(getattr(self, name))}
        return {**asdict(self), **infinite}


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn of one rollout as a scorer sees it. Images are RGB, 8 bit.

    Attributes:
        session: the whole session (its opaque states are for the scorers of the same benchmark).
        turn: t, from 1. judged: k, the instruction to judge; k = t but for single-shot, where k runs over 1..t.
        protocol: free-running, teacher-forced or single-shot.
        source: I_0. previous: what the editor was shown. current: what it made.
        reference: the reference image after turn t, None where the benchmark has none.
        previous_reference: the same after turn t-1 (t = 1: the source).
        history: (instruction, resulting image) of the earlier turns, oldest first (free-running only).
    """

    session: Session
    turn: int
    judged: int
    protocol: str
    source: Image
    previous: Image
    current: Image
    reference: Image | None = None
    previous_reference: Image | None = None
    history: tuple[tuple[str, Image], ...] = ()

    @property
    def instruction(self) -> Turn:
        """The turn whose instruction is judged."""
        return self.session.turns[self.judged - 1]


@dataclass(frozen=True, slots=True)
class Score:
    """A number in its range, or a state; see :class:`mteval.sessions.ScoreRecord` for the fields."""

    state: ScoreState
    value: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.state == "ok") != (self.value is not None):
            raise ValueError(f"a score has a value exactly when its state is ok, not {self.state} with {self.value}")


class Scorer(Protocol):
    """``score`` answers in the order of its views, one score a view."""

    @property
    def info(self) -> ScorerInfo: ...

    def score(self, batch: Sequence[TurnView]) -> list[Score]: ...


@runtime_checkable
class AsksJudge(Protocol):
    """A scorer that asks a judge; those of one judge share its asker, which counts what it took."""

    @property
    def asker(self) -> Asker: ...


@runtime_checkable
class ReadsStates(Protocol):
    """A scorer that looks into the opaque states of its benchmark where these are more than plain JSON values."""

    def read_state(self, plain: Any) -> Any:
        """The state that JSON made ``plain`` of, where tuples are lists: how it reaches a scorer behind a server.

        Raises:
            TypeError, ValueError: ``plain`` is no state of the benchmark.
        """
        ...
