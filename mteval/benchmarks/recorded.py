"""Benchmarks whose sessions are written down and whose images are files: what they all have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mteval.benchmarks.base import BenchmarkInfo
from mteval.benchmarks.pictures import Picture, decoded, digest
from mteval.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.sessions import Session


@dataclass(frozen=True, slots=True)
class Entry:
    """A session and where its images are.

    Attributes:
        references: the image after turn 1, 2 ..., None where there is none; () = no reference images.
    """

    session: Session
    source: Picture
    references: tuple[Picture | None, ...] = ()


class Recorded:
    """A benchmark made of entries.

    Args:
        id, variant, scorers: see :class:`~mteval.benchmarks.base.BenchmarkInfo`.
        entries: in the order of the benchmark.
        task_types: every type a turn may have; None = those that occur.
        turns: what a run takes when nobody says; None = the longest session.
        side: the images are scaled to this many pixels in both directions; None = as they are.
        pin: of the texts, where a published file pins them; None = worked out from the sessions.

    Raises:
        UsageError: no session, or two of one id.
    """

    def __init__(
        self,
        id: str,
        entries: Iterable[Entry],
        scorers: tuple[str, ...],
        *,
        variant: str = "",
        task_types: tuple[str, ...] | None = None,
        turns: int | None = None,
        side: int | None = None,
        pin: str | None = None,
    ) -> None:
        self._id, self._variant, self._scorers, self._side, self._pin = id, variant, scorers, side, pin
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            if entry.session.id in self._entries:
                raise UsageError(f"benchmark {id} has two sessions of the id '{entry.session.id}'")
            self._entries[entry.session.id] = entry
        if not self._entries:
            raise UsageError(f"benchmark {id} has no session{f' in {variant}' if variant else ''}")
        found = {turn.task_type for entry in self._entries.values() for turn in entry.session.turns}
        self._task_types = task_types or tuple(sorted(found))
        self._longest = max(len(entry.session.turns) for entry in self._entries.values())
        self._turns = turns or self._longest

    @cached_property
    def info(self) -> BenchmarkInfo:
        """What a run needs to know; the version is worked out from every text and every image, once."""
        entries = self._entries.values()
        return BenchmarkInfo(
            id=self._id,
            variant=self._variant,
            version=f"{self._pin or _digest_of([entry.session for entry in entries])}-{digest(_pictures(entries))}",
            task_types=self._task_types,
            scorers=self._scorers,
            has_references=all(_has_references(entry) for entry in entries),
            size=len(self._entries),
            max_turns=self._longest,
            default_turns=self._turns,
        )

    def sessions(self, turns: int, limit: int | None = None) -> Sequence[Session]:
        """The first ``limit`` sessions cut to ``turns`` turns; a session that has fewer stays as it is."""
        kept = list(self._entries.values())[:limit]
        return [replace(entry.session, turns=entry.session.turns[:turns]) for entry in kept]

    def source(self, session: Session) -> Image:
        return decoded(self._entries[session.id].source, self._side)

    def reference(self, session: Session, turn: int) -> Image | None:
        entry = self._entries[session.id]
        if turn == 0:
            return self.source(session)
        picture = entry.references[turn - 1] if entry.references else None
        return None if picture is None else decoded(picture, self._side)


def _has_references(entry: Entry) -> bool:
    return len(entry.references) == len(entry.session.turns) and None not in entry.references


def _pictures(entries: Iterable[Entry]) -> Iterable[Picture]:
    return (picture for entry in entries for picture in (entry.source, *entry.references) if picture is not None)


def _digest_of(sessions: Iterable[Session]) -> str:
    """12 hexadecimal digits of ids, instructions, types and slots."""
    told = [[s.id, s.source_id, [[t.instruction, t.task_type, dict(t.slots)] for t in s.turns]] for s in sessions]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
