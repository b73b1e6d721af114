"""The contract of a benchmark: a named, versioned source of sessions with their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.sessions import Session


@dataclass(frozen=True, slots=True)
class BenchmarkInfo:
    """What a run needs to know of a benchmark before it starts.

    Attributes:
        id: its registry name, with what tells variants apart (``shapes`` with level and split in ``variant``).
        version: changes when any session or image changes.
        task_types: every type a turn may have.
        scorers: names of the scorers that a run uses unless told otherwise.
        has_references: whether :meth:`Benchmark.reference` gives images (teacher-forced needs them).
        size: how many sessions there are.
        max_turns: longest session; None = any length.
        default_turns, default_limit: what `mteval run` takes when the user says nothing (None = all sessions).
    """

    id: str
    variant: str
    version: str
    task_types: tuple[str, ...]
    scorers: tuple[str, ...]
    has_references: bool
    size: int
    max_turns: int | None = None
    default_turns: int = 3
    default_limit: int | None = None


class Benchmark(Protocol):
    """Sessions and their images; every call is deterministic."""

    @property
    def info(self) -> BenchmarkInfo: ...

    def sessions(self, turns: int, limit: int | None = None) -> Sequence[Session]:
        """The first ``limit`` sessions, each cut to (or made for) ``turns`` turns; the order never changes."""
        ...

    def source(self, session: Session) -> Image:
        """I_0, RGB, 8 bit."""
        ...

    def reference(self, session: Session, turn: int) -> Image | None:
        """The reference image after ``turn`` turns (0 = the source), or None where there is none."""
        ...
