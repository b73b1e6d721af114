"""What the judge is asked for a session, and how its words are read: the objects of a photo, and what is made up."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mteval.benchmarks.make.pool import Thing
from mteval.judges.base import Answer
from mteval.judges.contract import Reading, json_values, truncated

OBJECTS = (
    "Which objects of this photo could somebody ask an image editor to change? List at most twelve, those that are "
    "plain to see. Leave people out, and list what they wear or carry instead. Say of each: the noun alone (object), "
    'its main color (color), what it is made of (material), the letters that are written on it (text), each "" where '
    "there is nothing to say; how many of the kind there are (count); and whether it belongs to the foreground "
    "(foreground)."
)

NAME = re.compile(r"[\w&'-]+( [\w&'-]+)*")
"""Words with a space between them: they stand in lists with commas, and between brackets."""
_LETTERS = re.compile(r"[^\[\]\"\n]{1,40}")
_NOTHING = ("", "none", "null", "n/a", "unknown")
_LONGEST = 60  # characters of a name
_ONE = ("person", "man", "woman", "boy", "girl", "child", "kid", "baby", "human", "lady", "guy", "adult")
_MANY = ("people", "men", "women", "boys", "girls", "children", "kids", "babies", "humans", "ladies", "guys", "adults")
_PEOPLE = frozenset((*_ONE, *_MANY, "crowd"))


class _Listed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    object: str
    color: str | None = None
    material: str | None = None
    text: str | None = None
    count: int = Field(default=1, ge=1)
    foreground: bool


@dataclass(frozen=True, slots=True)
class Objects:
    """The contract of a list of objects; an empty list is an answer."""

    tokens: int = 1500

    @property
    def format(self) -> str:
        example = {"object": "cup", "color": "red", "material": "", "text": "TEA", "count": 1, "foreground": True}
        return f"Answer with a JSON list and nothing else: [{json.dumps(example)}, ...]"

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    def read(self, answer: Answer) -> Reading:
        if answer.truncated:
            return truncated(answer, self.tokens)
        try:
            found = listed(answer.text)
        except ValueError as error:
            return Reading("parse_error", text=answer.text, reason=str(error))
        return Reading("ok", None, answer.text, f"{len(found)} objects")


def listed(text: str) -> list[Thing]:
    """The objects of a reply, people left out.

    Raises:
        ValueError: it is not of the format; says where.
    """
    lists = [value for _, value in json_values(text, "[")]
    if len(lists) != 1:
        raise ValueError("the reply holds no JSON list" if not lists else f"the reply holds {len(lists)} JSON lists")
    things = [_thing(entry, place) for place, entry in enumerate(lists[0], 1)]
    return [thing for thing in things if thing.object.split()[-1] not in _PEOPLE]


def _thing(entry: Any, place: int) -> Thing:
    try:
        told = _Listed.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"object {place} of the list: {where} {problem['msg']}".replace("  ", " ")) from error
    noun, color, material = (_plain(part).lower() for part in (told.object, told.color, told.material))
    for part in (material, color):  # "red", "red cup": the noun alone was asked for
        noun = noun.removeprefix(f"{part} ") if part else noun
    letters = _plain(told.text)
    thing = Thing(
        noun, color, material, letters if _LETTERS.fullmatch(letters) else "", told.count, foreground=told.foreground
    )
    if not noun or not NAME.fullmatch(thing.name) or len(thing.name) > _LONGEST:
        raise ValueError(f"object {place} of the list: '{thing.name}' is no name of a few words")
    return thing


def _plain(text: str | None) -> str:
    words = " ".join((text or "").split())
    return "" if words.lower() in _NOTHING else words


@dataclass(frozen=True, slots=True)
class Invented:
    """The contract of something made up: a name of a few words.

    Attributes:
        what: is to be named. most: words.
        taken: what it must not be, in lower case. letters: it is a text that keeps its capitals.
    """

    what: str
    most: int = 3
    taken: frozenset[str] = frozenset()
    letters: bool = False
    tokens: int = 32

    @property
    def format(self) -> str:
        return f"Answer with {self.what} alone, in at most {self.most} words, without quotes and without a full stop."

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    def read(self, answer: Answer) -> Reading:
        if answer.truncated:
            return truncated(answer, self.tokens)
        said = answer.text.strip()
        word = said if self.letters else re.sub(r"^(a|an|the) ", "", said.lower())
        if not NAME.fullmatch(word) or len(word.split()) > self.most:
            reason = f"the reply is not {self.what} in at most {self.most} words"
            return Reading("parse_error", text=answer.text, reason=reason)
        if word.lower() in self.taken:
            return Reading("parse_error", text=answer.text, reason=f"'{word}' is there already, or was before")
        return Reading("ok", None, word, word)
