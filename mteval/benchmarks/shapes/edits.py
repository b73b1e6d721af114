"""The nine task types of EdiVal on scenes: what is possible, what it asks for, and the exact state it leads to.

Every edit is deterministic given its words, so that the reference state is the only right answer: an added item is
plain where nothing else is said and sits in the middle of its place; a replacement and copies keep the offset of the
item they come from; copies fill the free places in reading order, beginning after the item.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from mteval.benchmarks.shapes.world import Item, Level, Scene, scene

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")

WORDING: dict[str, tuple[str, ...]] = {
    "subject_add": (
        "Add a {material} {noun} at the {place}",
        "Put a {material} {noun} in the {place}",
        "Place a {material} {noun} at the {place}",
    ),
    "subject_remove": ("Remove the {noun}", "Delete the {noun}", "Take away the {noun}"),
    "subject_replace": ("Replace the {old} with {new}", "Swap the {old} for {new}", "Turn the {old} into {new}"),
    "color_alter": ("Make the {noun} {color}", "Paint the {noun} {color}", "Change the color of the {noun} to {color}"),
    "material_alter": (
        "Make the {noun} {material}",
        "Give the {noun} a {material} texture",
        "Change the {noun} to a {material} one",
    ),
    "text_change": (
        "Change the letter on the {noun} to {letter}",
        "Replace the letter on the {noun} with {letter}",
        "Write {letter} on the {noun}",
        "Put the letter {letter} on the {noun}",
    ),
    "position_change": (
        "Move the {noun} to the {place}",
        "Shift the {noun} to the {place}",
        "Bring the {noun} to the {place}",
    ),
    "count_change": (
        "Make it {number} {noun}",
        "There should be {number} {noun}",
        "Change the number of {noun} to {number}",
    ),
    "background_change": (
        "Change the background to {name}",
        "Replace the background with {name}",
        "Use {name} as the background",
    ),
}
"""How each type is put into words; words.py reads them back. Of ``text_change``, the last two are for a bare item."""


class Edit(NamedTuple):
    """An instruction and the scene after it.

    ``touched`` are the ids of the items it changes, adds or removes. ``slots`` is what the scorers judge, see
    shapes_if.py.
    """

    task_type: str
    instruction: str
    slots: dict[str, Any]
    touched: tuple[int, ...]
    after: Scene


class Context(NamedTuple):
    """What an edit may draw on. ``next_id`` is the first unused item id."""

    level: Level
    scene: Scene
    next_id: int
    rng: Random

    def singles(self) -> list[Item]:
        """The items that their noun names alone."""
        nouns = [item.noun for item in self.scene.items]
        return [item for item in self.scene.items if nouns.count(item.noun) == 1]

    def replaced(self, old: Item, new: Item) -> Scene:
        return self.with_items([new if item is old else item for item in self.scene.items])

    def with_items(self, items: list[Item]) -> Scene:
        return scene(self.level.name, self.scene.background, items)

    def phrase(self, templates: tuple[str, ...], **words: str) -> str:
        return self.rng.choice(templates).format(**words)

    def new_noun(self, material: bool) -> tuple[str, str, str] | None:
        """Shape, colour and material of something the scene does not have yet."""
        nouns = {item.noun for item in self.scene.items}
        for _ in range(20):
            shape, color = self.rng.choice(self.level.shapes), self.rng.choice(self.level.colors)
            if f"{color} {shape}" not in nouns:
                return shape, color, self.rng.choice(self.level.materials) if material else "plain"
        return None


def place_name(place: int, grid: int) -> str:
    row, column = divmod(place, grid)
    return "center" if row == column == 1 else f"{_ROWS[row]} {_COLUMNS[column]}"


def subject_add(c: Context) -> Edit | None:
    free = c.scene.free_places(c.level.places)
    noun = c.new_noun(material=True)
    if not free or noun is None or len(c.scene.items) >= c.level.crowd:
        return None
    shape, color, material = noun
    item = Item(c.next_id, shape, color, material, "", c.rng.choice(free), 0, 0)
    text = c.phrase(
        WORDING["subject_add"],
        material=material,
        noun=item.noun,
        place=place_name(item.place, c.level.grid),
    )
    slots = {"shows": [item.id, ["shape", "color", "material"], []]}
    return Edit("subject_add", text, slots, (item.id,), c.with_items([*c.scene.items, item]))


def subject_remove(c: Context) -> Edit | None:
    singles = c.singles()
    if not singles or len(c.scene.items) < 3:
        return None
    item = c.rng.choice(singles)
    text = c.phrase(WORDING["subject_remove"], noun=item.noun)
    after = c.with_items([other for other in c.scene.items if other is not item])
    return Edit("subject_remove", text, {"empty": item.id}, (item.id,), after)


def subject_replace(c: Context) -> Edit | None:
    singles, noun = c.singles(), c.new_noun(material=False)
    if not singles or noun is None:
        return None
    old, (shape, color, material) = c.rng.choice(singles), noun
    new = Item(c.next_id, shape, color, material, "", old.place, old.dx, old.dy)
    text = c.phrase(
        WORDING["subject_replace"],
        old=old.noun,
        new=f"{'an' if new.noun[0] in 'aeiou' else 'a'} {new.noun}",
    )
    slots = {"shows": [new.id, ["shape", "color"], []]}
    return Edit("subject_replace", text, slots, (old.id, new.id), c.replaced(old, new))


def color_alter(c: Context) -> Edit | None:
    nouns = {item.noun for item in c.scene.items}
    choices = [
        (item, color) for item in c.singles() for color in c.level.colors if f"{color} {item.shape}" not in nouns
    ]
    if not choices:
        return None
    old, color = c.rng.choice(choices)
    text = c.phrase(WORDING["color_alter"], noun=old.noun, color=color)
    slots = {"shows": [old.id, ["color"], ["shape"]]}
    return Edit("color_alter", text, slots, (old.id,), c.replaced(old, old._replace(color=color)))


def material_alter(c: Context) -> Edit | None:
    singles = c.singles()
    if not singles:
        return None
    old = c.rng.choice([item for item in singles if not item.text] or singles)  # a label hides the fill
    material = c.rng.choice([m for m in c.level.materials if m != old.material])
    text = c.phrase(WORDING["material_alter"], noun=old.noun, material=material)
    slots = {"shows": [old.id, ["material"], ["shape", "color"]]}
    return Edit("material_alter", text, slots, (old.id,), c.replaced(old, old._replace(material=material)))


def text_change(c: Context) -> Edit | None:
    singles = c.singles()
    if not singles:
        return None
    labelled = [item for item in singles if item.text]
    old = c.rng.choice(labelled or singles)
    letter = c.rng.choice([letter for letter in c.level.letters if letter != old.text])
    templates = WORDING["text_change"]
    text = c.phrase(templates[:2] if old.text else templates[2:], noun=old.noun, letter=letter)
    slots = {"shows": [old.id, ["text"], ["shape", "color"]]}
    return Edit("text_change", text, slots, (old.id,), c.replaced(old, old._replace(text=letter)))


def position_change(c: Context) -> Edit | None:
    singles, free = c.singles(), c.scene.free_places(c.level.places)
    if not singles or not free:
        return None
    old, place = c.rng.choice(singles), c.rng.choice(free)
    text = c.phrase(WORDING["position_change"], noun=old.noun, place=place_name(place, c.level.grid))
    slots = {"shows": [old.id, ["shape", "color"], []], "empty": old.id}
    return Edit("position_change", text, slots, (old.id,), c.replaced(old, moved(old, place, c.level)))


def count_change(c: Context) -> Edit | None:
    nouns = [item.noun for item in c.scene.items]
    free = c.scene.free_places(c.level.places)
    most = min(len(free), c.level.crowd - len(c.scene.items))
    choices = []
    for item in c.scene.items:
        count = nouns.count(item.noun)
        if nouns.index(item.noun) == c.scene.items.index(item):
            choices += [(item, n) for n in (1, 2, 3) if n != count and n - count <= most]
    if not choices:
        return None
    item, number = c.rng.choice(choices)
    group = [other for other in c.scene.items if other.noun == item.noun]
    gone = group[number:]
    copies = copied(group, number, free, c.level, c.next_id)
    items = [other for other in c.scene.items if other not in gone] + copies
    touched = tuple(other.id for other in (*gone, *copies))
    text = c.phrase(
        WORDING["count_change"],
        number=NUMBERS[number],
        noun=f"{item.noun}" if number == 1 else plural(item.noun),
    )
    slots = {"count": [item.shape, item.color, number]}
    return Edit("count_change", text, slots, touched, c.with_items(items))


def background_change(c: Context) -> Edit | None:
    name = c.rng.choice([b for b in c.level.backgrounds if b != c.scene.background])
    text = c.phrase(WORDING["background_change"], name=name)
    return Edit("background_change", text, {"background": name}, (), c.scene._replace(background=name))


def moved(item: Item, place: int, level: Level) -> Item:
    """The item at another place; its offset goes along, as far as there is room for it."""
    room = (level.offsets(place, axis) for axis in (0, 1))
    dx, dy = (min(max(offset, low), high) for offset, (low, high) in zip(item[6:], room, strict=True))
    return item._replace(place=place, dx=dx, dy=dy)


def copied(group: list[Item], number: int, free: list[int], level: Level, next_id: int) -> list[Item]:
    """The copies of a group's first item that make it ``number``: one free place after the other, from its last on."""
    copies: list[Item] = []
    for k in range(number - len(group)):
        last, left = (copies or group)[-1].place, [place for place in free if place not in {c.place for c in copies}]
        place = min((p for p in left if p > last), default=min(left))
        copies.append(moved(group[0], place, level)._replace(id=next_id + k))
    return copies


def plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


EDITS: dict[str, Callable[[Context], Edit | None]] = {
    edit.__name__: edit
    for edit in (
        subject_add,
        subject_remove,
        subject_replace,
        color_alter,
        material_alter,
        text_change,
        position_change,
        count_change,
        background_change,
    )
}
