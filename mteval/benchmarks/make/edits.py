"""The nine types of edit: when one is possible, how it is drawn, what has to be made up for it, and what it changes.

The forms are those of EdiVal-Bench (see :mod:`mteval.benchmarks.edival_format`), so its scorers read these turns too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Self

from mteval.benchmarks.edival import turn_of
from mteval.benchmarks.edival_csv import Row
from mteval.benchmarks.edival_format import DIRECTIONS
from mteval.benchmarks.make.pool import Pool, Thing
from mteval.benchmarks.make.words import Invented
from mteval.sessions import Turn

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
COUNTS = (3, 4, 5)
"""What EdiVal's instructions ask for."""


class Edit(ABC):
    """One edit of a pool, drawn at random; what is made up comes later, as a ``word``."""

    @staticmethod
    @abstractmethod
    def possible(pool: Pool) -> bool: ...

    @classmethod
    @abstractmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        """Where it is possible."""

    def blank(self, pool: Pool) -> tuple[str, Invented] | None:
        """What has to be made up: the question, and the contract of its answer."""
        return None

    @abstractmethod
    def form(self, word: str) -> str:
        """The instruction with its slots in [brackets]."""

    def instruction(self, word: str) -> str:
        return self.form(word).translate({ord("["): None, ord("]"): None})

    @abstractmethod
    def after(self, pool: Pool, word: str) -> Pool:
        """The pool of :meth:`draw`, once the edit is done."""


@dataclass(frozen=True, slots=True)
class Add(Edit):
    """Something new beside something that is there, which counts as untouched."""

    beside: Thing
    direction: str

    @staticmethod
    def possible(pool: Pool) -> bool:
        return bool(pool.things)

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        return cls(dice.choice(pool.things), dice.choice(DIRECTIONS))

    def blank(self, pool: Pool) -> tuple[str, Invented]:
        place = {"left": "on the left of", "right": "on the right of", "above": "above", "below": "below"}
        question = f"Something is to be added {place[self.direction]} the {self.beside.name}. What would look natural?"
        return question, Invented("the name of the new object", taken=_lower(pool.ever))

    def form(self, word: str) -> str:
        return f"Add [{word}] on the [{self.direction}] of [{self.beside.name}]"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.added(Thing(word))


@dataclass(frozen=True, slots=True)
class Remove(Edit):
    """One of several things, so that something is left to go on with."""

    thing: Thing

    @staticmethod
    def possible(pool: Pool) -> bool:
        return len(pool.things) > 1

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        return cls(dice.choice(pool.things))

    def form(self, word: str) -> str:
        return f"Remove [{self.thing.name}]"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.removed(self.thing)


@dataclass(frozen=True, slots=True)
class Replace(Edit):
    """Something else in the same place, in the foreground if that was."""

    thing: Thing

    @staticmethod
    def possible(pool: Pool) -> bool:
        return bool(pool.things)

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        return cls(dice.choice(pool.things))

    def blank(self, pool: Pool) -> tuple[str, Invented]:
        question = f"The {self.thing.name} is to be replaced with something else. What would fit in its place?"
        return question, Invented("the name of the new object", taken=_lower(pool.ever))

    def form(self, word: str) -> str:
        return f"Replace [{self.thing.name}] with [{word}]"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.replaced(self.thing, Thing(word, foreground=self.thing.foreground))


@dataclass(frozen=True, slots=True)
class Rematerial(Edit):
    """Another material, which is in the name from now on."""

    thing: Thing

    @staticmethod
    def possible(pool: Pool) -> bool:
        return bool(pool.things)

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        return cls(dice.choice(pool.things))

    def blank(self, pool: Pool) -> tuple[str, Invented]:
        question = f"The {self.thing.name} is to be made of another material. Of which, so that one sees it?"
        bare = f" {replace(self.thing, material='').name}"
        taken = {self.thing.material, *(name.removesuffix(bare) for name in pool.ever if name.endswith(bare))}
        return question, Invented("the name of the material", 2, _lower(taken))

    def form(self, word: str) -> str:
        return f"Change the material of [{self.thing.name}] to [{word}]"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.replaced(self.thing, replace(self.thing, material=word, untouched=False))


@dataclass(frozen=True, slots=True)
class Recolor(Edit):
    """Another color, which is in the name from now on."""

    thing: Thing
    color: str

    @staticmethod
    def possible(pool: Pool) -> bool:
        return bool(_recolorable(pool))

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        thing, colors = dice.choice(_recolorable(pool))
        return cls(thing, dice.choice(colors))

    def form(self, word: str) -> str:
        return f"Change the color of [{self.thing.name}] to [{self.color}]"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.replaced(self.thing, replace(self.thing, color=self.color, untouched=False))


@dataclass(frozen=True, slots=True)
class Retext(Edit):
    """Other letters on a thing that has some; where none has, letters on the image, which touch no thing."""

    thing: Thing | None

    @staticmethod
    def possible(pool: Pool) -> bool:
        return True

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        written = [thing for thing in pool.things if thing.text]
        return cls(dice.choice(written) if written else None)

    def blank(self, pool: Pool) -> tuple[str, Invented]:
        question = "A short text is to be written on this photo. Which would suit it?"
        if self.thing is not None:
            question = f"The text '{self.thing.text}' on the {self.thing.name} is to be replaced. With which other one?"
        taken = {self.thing.text} if self.thing else ()
        return question, Invented("the new text", taken=_lower(taken), letters=True)

    def form(self, word: str) -> str:
        if self.thing is None:
            return f"Add text '[{word}]' on the image"
        return f"Replace the text '[{self.thing.text}]' on [{self.thing.name}] with '[{word}]'"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.lettered() if self.thing is None else pool.touched(replace(self.thing, text=word))


@dataclass(frozen=True, slots=True)
class Move(Edit):
    """A thing to a side of another; both are touched."""

    thing: Thing
    other: Thing
    direction: str

    @staticmethod
    def possible(pool: Pool) -> bool:
        return len(pool.things) > 1

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        thing, other = dice.sample(pool.things, 2)
        return cls(thing, other, dice.choice(DIRECTIONS))

    def form(self, word: str) -> str:
        return f"Change the position of [{self.thing.name}] to [{self.direction}] of [{self.other.name}]"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.touched(self.thing).touched(self.other)


@dataclass(frozen=True, slots=True)
class Recount(Edit):
    """Another number of a thing."""

    thing: Thing
    count: int

    @staticmethod
    def possible(pool: Pool) -> bool:
        return bool(pool.things)

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        thing = dice.choice(pool.things)
        return cls(thing, dice.choice([count for count in COUNTS if count != thing.count]))

    def form(self, word: str) -> str:
        return f"Change the count of [{self.thing.name}] to [{self.count}]"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.touched(replace(self.thing, count=self.count))


@dataclass(frozen=True, slots=True)
class Rebackground(Edit):
    """Another background behind the foreground, which is named and stays."""

    kept: tuple[str, ...]

    @staticmethod
    def possible(pool: Pool) -> bool:
        return bool(pool.foreground)

    @classmethod
    def draw(cls, pool: Pool, dice: Random) -> Self:
        return cls(tuple(thing.name for thing in pool.foreground))

    def blank(self, pool: Pool) -> tuple[str, Invented]:
        question = f"All but the {', '.join(self.kept)} is to get another background. Which other place would suit?"
        return question, Invented("the name of the place", taken=_lower(pool.ever))

    def form(self, word: str) -> str:
        return f"Change the background to [{word}]"

    def instruction(self, word: str) -> str:
        return f"Change the background to {word}, remain the {', '.join(self.kept)} unchanged"

    def after(self, pool: Pool, word: str) -> Pool:
        return pool.on_another_background()


EDITS: Mapping[str, type[Edit]] = {
    "subject_add": Add,
    "subject_remove": Remove,
    "subject_replace": Replace,
    "material_alter": Rematerial,
    "color_alter": Recolor,
    "text_change": Retext,
    "position_change": Move,
    "count_change": Recount,
    "background_change": Rebackground,
}
"""By task type."""


def drawn(pool: Pool, had: Sequence[str], dice: Random) -> tuple[str, Edit] | None:
    """An edit of a type that the session has not had; None where no such type is possible."""
    open_types = [kind for kind, edit in EDITS.items() if kind not in had and edit.possible(pool)]
    if not open_types:
        return None
    kind = dice.choice(open_types)
    return kind, EDITS[kind].draw(pool, dice)


def done(kind: str, edit: Edit, word: str, number: int, pool: Pool) -> tuple[Turn, Pool]:
    """The turn, its slots those of EdiVal-Bench, and the pool after it.

    Args:
        word: what was made up, "" where nothing was. number: of the turn, from 1. pool: before it.
    """
    left = edit.after(pool, word)
    row = Row(
        turn=number,
        task_type=kind,
        instruction=edit.instruction(word),
        form=edit.form(word),
        bg_consistency=left.same_background,
        unchanged_objects=left.unchanged,
        available_objects=left.available,
        all_objects=left.ever,
    )
    return turn_of(row), left


def _recolorable(pool: Pool) -> list[tuple[Thing, list[str]]]:
    """Things with the colors that they have not and that give them a name of their own."""
    found = []
    for thing in pool.things:
        others = [color for color in COLORS if color not in thing.color.split()]
        found.append((thing, [color for color in others if replace(thing, color=color).name not in pool.ever]))
    return [(thing, colors) for thing, colors in found if colors]


def _lower(names: Sequence[str] | set[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names if name)
