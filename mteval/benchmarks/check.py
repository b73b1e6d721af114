"""Is a benchmark what it says it is? Every session, turn and image of it is looked at, and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mteval.benchmarks.files import WORD
from mteval.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.benchmarks.base import Benchmark
    from mteval.sessions import Session


@runtime_checkable
class Fingerprinted(Protocol):
    """A benchmark that can be told from its published data by some counts."""

    def fingerprints(self) -> Mapping[str, tuple[Any, Any]]:
        """Name of a count -> (as it is here, as it is published)."""
        ...


@dataclass(frozen=True, slots=True)
class Findings:
    """What was seen.

    Attributes:
        sessions: how many were looked at. lengths: turns of a session -> sessions.
        types: (task type, turn from 1) -> how many. sizes: (width, height) of a source -> sessions.
        sources: different start images. references: how many reference images were read.
        problems: one sentence each.
    """

    sessions: int
    lengths: Mapping[int, int]
    types: Mapping[tuple[str, int], int]
    sizes: Mapping[tuple[int, int], int]
    sources: int
    references: int
    problems: Sequence[str]


def look_at(benchmark: Benchmark, turns: int | None = None, limit: int | None = None) -> Findings:
    """Load everything: ids, turns, sources and references.

    Args:
        turns: of a session; None = the longest, or the benchmark's own where they have any length.
        limit: only the first sessions.
    """
    info = benchmark.info
    longest = turns or info.max_turns or info.default_turns
    sessions = benchmark.sessions(longest, limit)
    problems = list(_of_the_list(benchmark, sessions, longest, limit))
    lengths: Counter[int] = Counter()
    types: Counter[tuple[str, int]] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    references = 0
    for session in sessions:
        lengths[len(session.turns)] += 1
        types.update((turn.task_type, number) for number, turn in enumerate(session.turns, 1))
        problems += _of_a_session(session, info.task_types)
        source, fault = _read(lambda session=session: benchmark.source(session))
        if source is None:
            problems.append(f"session {session.id}: {fault or 'no source image'}")
            continue
        sizes[source.size] += 1
        problems += [f"session {session.id}: the source is {source.mode}, not RGB"] if source.mode != "RGB" else []
        for number in range(1, len(session.turns) + 1):
            image, fault = _read(lambda session=session, number=number: benchmark.reference(session, number))
            where = f"session {session.id}, turn {number}"
            references += image is not None
            if fault:
                problems.append(f"{where}: {fault}")
            elif image is None and info.has_references:
                problems.append(f"{where}: no reference image, although the benchmark says that it has them all")
            elif image is not None and (image.mode, image.size) != ("RGB", source.size):
                problems.append(f"{where}: the reference is {_words(image)}, the source {_words(source)}")
    sources = len({session.source_id for session in sessions})
    return Findings(len(sessions), lengths, types, sizes, sources, references, problems)


def _of_the_list(benchmark: Benchmark, sessions: Sequence[Session], turns: int, limit: int | None) -> Iterator[str]:
    info = benchmark.info
    expected = info.size if limit is None else min(limit, info.size)
    if len(sessions) != expected:
        yield f"{len(sessions)} sessions where {expected} are announced"
    for id, count in Counter(session.id for session in sessions).items():
        if count > 1:
            yield f"session {id} is there {count} times"
    for short, session in zip(benchmark.sessions(1, limit), sessions, strict=False):
        if (short.id, short.turns) != (session.id, session.turns[:1]):
            yield f"session {session.id} is another one when it is asked for with 1 turn instead of {turns}"


def _of_a_session(session: Session, known: Sequence[str]) -> Iterator[str]:
    if not re.fullmatch(WORD, session.id):
        yield f"session {session.id!r}: finished images are found by the id, which must be the name of a file"
    if not session.turns:
        yield f"session {session.id} has no turn"
    for number, turn in enumerate(session.turns, 1):
        if not turn.instruction.strip():
            yield f"session {session.id}, turn {number}: the instruction is empty"
        if turn.task_type not in known:
            yield f"session {session.id}, turn {number}: '{turn.task_type}' is none of the benchmark's types"


def _read(ask: Any) -> tuple[Image | None, str]:
    """The image, or None and why it cannot be read."""
    try:
        return ask(), ""
    except UsageError as error:
        return None, str(error)


def _words(image: Image) -> str:
    return f"{image.width}x{image.height} {image.mode}"
