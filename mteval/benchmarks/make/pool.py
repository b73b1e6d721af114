"""The objects of a session: what is in its photo, and what the turns so far have made of it.

The rules are those of EdiVal-Bench's generator (arXiv 2509.13399), as the pools in its instructions file show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

ADDED_TEXT = "text"
"""What letters that were written on the image are called among all objects."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An object, or several of a kind, under one name.

    Attributes:
        object: the noun. color, material, text (letters on it): "" where there is nothing to say.
        count: how many there are. foreground: it stays when the background changes.
        untouched: it is in the photo, and no turn was about it.
    """

    object: str
    color: str = ""
    material: str = ""
    text: str = ""
    count: int = 1
    foreground: bool = True
    untouched: bool = False

    @property
    def name(self) -> str:
        """As instructions call it."""
        return " ".join(part for part in (self.material, self.color, self.object) if part)


@dataclass(frozen=True, slots=True)
class Pool:
    """What is there; every change gives a new pool, and wants a thing of this one.

    Attributes:
        things: no two of a name. ever: names of what was there at any time, the first ones first.
        same_background: it is the photo's own.
    """

    things: tuple[Thing, ...]
    ever: tuple[str, ...]
    same_background: bool = True

    @classmethod
    def of(cls, things: Sequence[Thing]) -> Self:
        """A photo's; of two things of one name the first."""
        found = {thing.name: replace(thing, untouched=True) for thing in reversed(things)}
        first = tuple(reversed(found.values()))
        return cls(first, tuple(thing.name for thing in first))

    @property
    def available(self) -> tuple[str, ...]:
        return tuple(thing.name for thing in self.things)

    @property
    def unchanged(self) -> tuple[str, ...]:
        return tuple(thing.name for thing in self.things if thing.untouched)

    @property
    def foreground(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.foreground)

    def added(self, thing: Thing) -> Pool:
        return replace(self, things=(*self.things, thing), ever=(*self.ever, thing.name))

    def removed(self, thing: Thing) -> Pool:
        return replace(self, things=tuple(other for other in self.things if other != thing))

    def replaced(self, thing: Thing, by: Thing) -> Pool:
        """Something else in its place, or the same under another name."""
        return self.removed(thing).added(by)

    def touched(self, changed: Thing) -> Pool:
        """The thing of this name, changed: it keeps its name."""
        new = replace(changed, untouched=False)
        return replace(self, things=tuple(new if other.name == changed.name else other for other in self.things))

    def lettered(self) -> Pool:
        """Letters were written on the image."""
        return replace(self, ever=(*self.ever, ADDED_TEXT)) if ADDED_TEXT not in self.ever else self

    def on_another_background(self) -> Pool:
        """The foreground is all that is left."""
        return replace(self, things=self.foreground, same_background=False)
