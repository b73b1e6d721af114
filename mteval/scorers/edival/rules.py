"""What a rule is: it asks for what it needs, one thing after the other, and ends with a verdict.

A rule is a generator: it yields a request and is sent the answer, so it reads from top to bottom, asks for nothing that
an earlier answer made needless, and holds neither a model nor an image. Who answers is its caller:
:mod:`mteval.scorers.edival_if` with a detector and a judge, a test with what was written down.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from mteval.judges.contract import Reading
from mteval.perception.base import Box, Detection

Side = Literal["before", "after"]
"""Which of the two images that are compared."""
BEFORE: Side = "before"
AFTER: Side = "after"


class Place(NamedTuple):
    """An image, or a box of it."""

    side: Side
    box: Box | None = None


class Look(NamedTuple):
    """What the detector finds of ``name``, the surest first; answered with a list of detections."""

    side: Side
    name: str
    threshold: float


class Letters(NamedTuple):
    """What is written in a place; answered with a text, empty where nothing is."""

    place: Place


class Unchanged(NamedTuple):
    """Whether the two images are the same, pixel for pixel; answered with a bool."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to the judge; answered with a :class:`~mteval.judges.contract.Reading` that is ``ok``.

    Attributes:
        parts: text and places, in the order in which they are shown.
        yes_or_no: the answer has a value, 0 for no to 1 for yes; else it has words only.
    """

    parts: tuple[str | Place, ...]
    yes_or_no: bool = False


Request = Look | Letters | Unchanged | Ask


class Verdict(NamedTuple):
    """Whether the edit is done (None = there is nothing to judge), and why, in words for a person."""

    holds: bool | None
    reason: str


Steps = Generator[Request, Any, Verdict]
Rule = Callable[[Mapping[str, Any]], Steps]
"""From the slots of a turn; which slots a type has: :func:`mteval.benchmarks.edival_format.parsed`."""


NEEDED: Mapping[str, tuple[str, ...]] = {
    "subject_add": ("object",),
    "subject_remove": ("object",),
    "subject_replace": ("object", "new_object"),
    "material_alter": ("object", "material"),
    "color_alter": ("object", "color"),
    "text_change": ("new_text",),
    "position_change": ("object", "direction", "reference_object"),
    "count_change": ("object", "count"),
    "background_change": ("background",),
}
"""The slots without which an instruction of a type says nothing."""


def yes(reason: str) -> Verdict:
    return Verdict(True, reason)


def no(reason: str) -> Verdict:
    return Verdict(False, reason)


def nothing(reason: str) -> Verdict:
    """There is nothing to judge."""
    return Verdict(None, reason)


def look(side: Side, name: str, threshold: float) -> Generator[Request, Any, list[Detection]]:
    found: list[Detection] = yield Look(side, name, threshold)
    return found


def letters(side: Side, box: Box | None = None) -> Generator[Request, Any, str]:
    text: str = yield Letters(Place(side, box))
    return text


def unchanged() -> Generator[Request, Any, bool]:
    same: bool = yield Unchanged()
    return same


def say(*parts: str | Place) -> Generator[Request, Any, str]:
    """The judge's words."""
    reading: Reading = yield Ask(parts)
    return reading.text


def agree(*parts: str | Place) -> Generator[Request, Any, bool]:
    """Whether the judge says yes, or holds it likelier than no."""
    reading: Reading = yield Ask(parts, yes_or_no=True)
    assert reading.value is not None, "a yes or no that is ok has a value"
    return reading.value >= 0.5
