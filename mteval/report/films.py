"""Filmstrips: which sessions are shown, and what is shown of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from mteval.report.runs import FORCED, FREE, Shown
from mteval.report.thumbnails import data_uri, thumbnail
from mteval.sessions import ScoreRecord, TurnRecord

SESSIONS = 30
"""How many sessions a page shows at most."""
IMAGE_BYTES = 3_600_000
"""How many bytes of embedded images a page has, about; fewer sessions are shown where they are larger."""

ALL_DONE, INCOMPLETE = "every turn done", "incomplete"


class Frame(NamedTuple):
    """One image of a strip, or why there is none.

    Attributes:
        image: a data URI. alt: what it shows, in words.
        verdict: ``success``, ``failure``, ``unknown`` (not judged, or nothing to judge) or ``missing`` (no image).
        word: the verdict in words. reason: the judge's or the editor's own words.
    """

    image: str | None
    alt: str
    verdict: str = ""
    word: str = ""
    reason: str = ""


class Step(NamedTuple):
    """One turn of a card: a frame a run, and for comparison what a clean input gave and the reference itself."""

    turn: int
    task_type: str
    instruction: str
    frames: list[Frame]
    forced: Frame | None
    reference: Frame | None


class Card(NamedTuple):
    """One session: where it starts, its turns, and how it came out in each run."""

    session: str
    start: Frame
    steps: list[Step]
    outcomes: list[str]


@dataclass
class _Reel:
    """The records of one run that filmstrips need, by session and turn, first repeat."""

    run: Shown
    turns: dict[tuple[str, str, int], TurnRecord] = field(default_factory=dict)
    scores: dict[tuple[str, str, int], ScoreRecord] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """What the large frames show."""
        return self.run.protocols[0]

    @classmethod
    def of(cls, run: Shown) -> _Reel:
        reel = cls(run)
        for record in run.folder.turn_records():
            if record.repeat == 1:
                reel.turns[record.protocol, record.session, record.turn] = record
        for score in run.folder.score_records():
            if score.repeat == 1 and score.scorer == run.following and score.judged == score.turn:
                reel.scores[score.protocol, score.session, score.turn] = score
        return reel

    def sessions(self) -> list[str]:
        return sorted({session for protocol, session, _ in self.turns if protocol == self.protocol})

    def strip(self, session: str) -> list[TurnRecord]:
        found = (self.turns.get((self.protocol, session, turn)) for turn in range(1, self.run.turns + 1))
        return [record for record in found if record]

    def outcome(self, session: str) -> str:
        """How a session came out: its first failure, where everything before it is known."""
        for record in self.strip(session):
            score = self.scores.get((record.protocol, session, record.turn))
            if score is None or score.state not in ("ok", "not_applicable"):
                return INCOMPLETE
            if score.success is False:
                return f"first failure at turn {record.turn}"
        return ALL_DONE


def cards(runs: Sequence[Shown], budget: int = IMAGE_BYTES, most: int = SESSIONS) -> list[Card]:
    """The sessions to show: in turn one of each outcome of each run, the same every time.

    Args:
        runs: of one benchmark. budget: bytes of images. most: how many sessions.
    """
    reels = [_Reel.of(run) for run in runs]
    shown: list[Card] = []
    spent = 0
    for session in _mixed(reels):
        card = _card(reels, session)
        spent += sum(len(frame.image or "") for frame in _frames(card))
        if len(shown) == most or (shown and spent > budget):
            break
        shown.append(card)
    _picture.cache_clear()
    return shown


def outcomes(shown: Sequence[Card]) -> list[tuple[str, int]]:
    """Every outcome among the cards and how many cards have it: failures by turn, then successes, then the rest."""
    counts: dict[str, int] = {}
    for card in shown:
        for outcome in set(card.outcomes):
            counts[outcome] = counts.get(outcome, 0) + 1
    return sorted(counts.items(), key=lambda item: _order(item[0]))


def _order(outcome: str) -> tuple[int, int]:
    if outcome in (ALL_DONE, INCOMPLETE):
        return (1 if outcome == ALL_DONE else 2), 0
    return 0, int(outcome.rsplit(" ", 1)[1])


def _mixed(reels: Sequence[_Reel]) -> Iterator[str]:
    """Every session, dealt in turn from the piles of the outcomes of every run."""
    piles: list[list[str]] = []
    for reel in reels:
        by_outcome: dict[str, list[str]] = {}
        for session in reel.sessions():
            by_outcome.setdefault(reel.outcome(session), []).append(session)
        piles += [by_outcome[outcome] for outcome in sorted(by_outcome, key=_order)]
    dealt: set[str] = set()
    for hand in zip_longest(*piles):
        for session in hand:
            if session is not None and session not in dealt:
                dealt.add(session)
                yield session


def _card(reels: Sequence[_Reel], session: str) -> Card:
    here = [reel for reel in reels if reel.strip(session)]
    longest = max((reel.strip(session) for reel in here), key=len)
    first, single = here[0], len(reels) == 1
    steps = []
    for record in longest:
        turn = record.turn
        frames = [_frame(reel, reel.turns.get((reel.protocol, session, turn))) for reel in reels]
        forced = None
        if single and turn > 1 and first.protocol == FREE and FORCED in first.run.protocols:
            forced = _frame(first, first.turns.get((FORCED, session, turn)))
        reference = _reference(here, session, turn)
        steps.append(Step(turn, record.task_type, record.instruction, frames, forced, reference))
    start = Frame(_stored(first, longest[0].input), f"{session}: the first image")
    return Card(session, start, steps, [reel.outcome(session) for reel in here])


def _frames(card: Card) -> Iterator[Frame]:
    yield card.start
    for step in card.steps:
        yield from step.frames
        yield from (frame for frame in (step.forced, step.reference) if frame)


def _frame(reel: _Reel, record: TurnRecord | None) -> Frame:
    if record is None:
        return Frame(None, "no such turn in this run", "missing", "no such turn")
    name = f"{record.session}, turn {record.turn}, {record.protocol}"
    if record.state != "ok":
        word = record.state.replace("_", " ")
        return Frame(None, f"{name}: no image, {word}", "missing", word, record.error or "")
    image = _stored(reel, record.image)
    score = reel.scores.get((record.protocol, record.session, record.turn))
    if score is None:
        return Frame(image, name, "unknown", "not judged")
    if score.state != "ok" or score.success is None:
        word = score.state.replace("_", " ") if score.state != "ok" else "no verdict"
        return Frame(image, f"{name}: {word}", "unknown", word, score.reason)
    verdict, word = ("success", "done") if score.success else ("failure", "not done")
    return Frame(image, f"{name}: {word}", verdict, word, score.reason)


def _reference(reels: Sequence[_Reel], session: str, turn: int) -> Frame | None:
    """The reference after a turn is what teacher-forced is shown at the next one."""
    for reel in reels:
        after = reel.turns.get((FORCED, session, turn + 1))
        if after and after.input:
            return Frame(_stored(reel, after.input), f"{session}, turn {turn}: the reference")
    return None


def _stored(reel: _Reel, content: str | None) -> str | None:
    return _picture(reel.run.folder.image_path(content)) if content else None


@cache
def _picture(path: Path) -> str:
    return data_uri(thumbnail(path))
