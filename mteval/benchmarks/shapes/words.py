"""From an instruction's words to what they ask for, and to the state that it leads to: edits.py read backwards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from mteval.benchmarks.shapes.edits import NUMBERS, WORDING, Edit, copied, moved, place_name, plural
from mteval.benchmarks.shapes.world import BACKGROUNDS, COLORS, LETTERS, LEVELS, MATERIALS, SHAPES, Item, Scene, scene


class Asked(NamedTuple):
    """What an instruction asks for.

    ``words`` are those that fill its template: ``noun`` (what is there already, or comes), ``new`` (the noun of a
    replacement), ``color``, ``material``, ``letter``, ``place``, ``number`` and ``name`` (of a background). Nouns stand
    in the singular and without an article.
    """

    instruction: str
    task_type: str
    words: Mapping[str, str]

    @property
    def number(self) -> int:
        """Of a ``count_change``."""
        return next(n for n, word in NUMBERS.items() if word == self.words["number"])


def asked_by(instruction: str) -> Asked:
    """What an instruction asks for.

    Raises:
        ValueError: it is not in the words of ShapesEdit.
    """
    for task_type, pattern in _patterns():
        if found := pattern.fullmatch(instruction):
            return Asked(instruction, task_type, {field: _plain(text) for field, text in found.groupdict().items()})
    raise ValueError(f"'{instruction}' is no instruction of ShapesEdit")


def named(asked: Asked, scene: Scene) -> list[Item]:
    """The items of a scene that go by the noun of the instruction."""
    return [item for item in scene.items if item.noun == asked.words.get("noun")]


def carried_out(asked: Asked, scene: Scene, item: Item | None, next_id: int | None = None) -> Edit:
    """The instruction as an edit of a scene.

    Args:
        item: what the instruction is about: the one item of :func:`named`, of several the first (``count_change``);
            None for ``subject_add`` and ``background_change``. An item that the noun does not fit is taken at its word.
        next_id: the id of the first new item; None = one more than the largest.

    Raises:
        ValueError: the scene has no room for it.
    """
    if next_id is None:
        next_id = max((other.id for other in scene.items), default=-1) + 1
    if asked.task_type == "background_change":
        after = scene._replace(background=asked.words["name"])
        return Edit(asked.task_type, asked.instruction, {"background": after.background}, (), after)
    if asked.task_type == "subject_add":
        return _added(asked, scene, next_id)
    if item is None:
        raise ValueError(f"'{asked.instruction}' is about an item")
    if asked.task_type == "count_change":
        return _counted(asked, scene, item, next_id)
    return _changed(asked, scene, item, next_id)


def _added(asked: Asked, scene: Scene, next_id: int) -> Edit:
    """What stands at the place goes: two items never share one."""
    color, shape = asked.words["noun"].split()
    item = Item(next_id, shape, color, asked.words["material"], "", _place(asked, scene), 0, 0)
    gone = [other.id for other in scene.items if other.place == item.place]
    slots = {"shows": [item.id, ["shape", "color", "material"], []]}
    return _edit(asked, slots, scene, [*gone, item.id], [item])


def _changed(asked: Asked, scene: Scene, old: Item, next_id: int) -> Edit:
    words, slots, new = asked.words, dict[str, Any](), old
    gone = [old.id]
    if asked.task_type == "subject_remove":
        return _edit(asked, {"empty": old.id}, scene, gone, [])
    if asked.task_type == "subject_replace":
        color, shape = words["new"].split()
        new = Item(next_id, shape, color, "plain", "", old.place, old.dx, old.dy)
        slots = {"shows": [new.id, ["shape", "color"], []]}
        gone.append(new.id)
    elif asked.task_type == "color_alter":
        new, slots = old._replace(color=words["color"]), {"shows": [old.id, ["color"], ["shape"]]}
    elif asked.task_type == "material_alter":
        new, slots = old._replace(material=words["material"]), {"shows": [old.id, ["material"], ["shape", "color"]]}
    elif asked.task_type == "text_change":
        new, slots = old._replace(text=words["letter"]), {"shows": [old.id, ["text"], ["shape", "color"]]}
    else:
        new = moved(old, _place(asked, scene), LEVELS[scene.level])
        slots = {"shows": [old.id, ["shape", "color"], []], "empty": old.id}
        gone += [other.id for other in scene.items if other.place == new.place and other is not old]
    return _edit(asked, slots, scene, gone, [new])


def _counted(asked: Asked, scene: Scene, item: Item, next_id: int) -> Edit:
    level = LEVELS[scene.level]
    number, group = asked.number, [other for other in scene.items if other.noun == item.noun]
    free = scene.free_places(level.places)
    if number - len(group) > len(free):
        raise ValueError(f"there is no room for {asked.words['number']} of {item.noun}")
    copies = copied(group, number, free, level, next_id)
    gone = [other.id for other in group[number:]]
    slots = {"count": [item.shape, item.color, number]}
    return _edit(asked, slots, scene, [*gone, *(copy.id for copy in copies)], copies)


def _edit(asked: Asked, slots: dict[str, Any], scene_before: Scene, touched: list[int], new: list[Item]) -> Edit:
    kept = [item for item in scene_before.items if item.id not in touched]
    after = scene(scene_before.level, scene_before.background, [*kept, *new])
    return Edit(asked.task_type, asked.instruction, slots, tuple(touched), after)


def _place(asked: Asked, scene: Scene) -> int:
    level = LEVELS[scene.level]
    return next(p for p in range(level.places) if place_name(p, level.grid) == asked.words["place"])


_NOUNS = {spoken: noun for noun in (f"{c} {s}" for c in COLORS for s in SHAPES) for spoken in (noun, plural(noun))}
_GRIDS = {level.grid for level in LEVELS.values()}
_FIELDS = {
    "noun": _NOUNS,
    "old": _NOUNS,
    "new": [f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" for noun in _NOUNS],
    "color": COLORS,
    "material": MATERIALS,
    "letter": LETTERS,
    "place": {place_name(place, grid) for grid in _GRIDS for place in range(grid * grid)},
    "number": NUMBERS.values(),
    "name": BACKGROUNDS,
}


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Every template as a regular expression. Their words are closed sets, so no instruction fits two of them."""
    found = []
    for task_type, templates in WORDING.items():
        for template in templates:
            pieces = re.split(r"\{(\w+)\}", template)  # text, field, text, field, ..., text
            for k, piece in enumerate(pieces):
                if k % 2:
                    choices = "|".join(re.escape(word) for word in _FIELDS[piece])
                    pieces[k] = f"(?P<{'noun' if piece == 'old' else piece}>{choices})"
                else:
                    pieces[k] = re.escape(piece)
            found.append((task_type, re.compile("".join(pieces))))
    return tuple(found)


def _plain(text: str) -> str:
    """A noun in the singular and without its article; other words as they are."""
    bare = text.removeprefix("an ").removeprefix("a ")
    return _NOUNS.get(bare, text)
