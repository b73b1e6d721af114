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

    def phrase(self, *templates: str, **words: str) -> str:
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
        "Add a {material} {noun} at the {place}",
        "Put a {material} {noun} in the {place}",
        "Place a {material} {noun} at the {place}",
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
    text = c.phrase("Remove the {noun}", "Delete the {noun}", "Take away the {noun}", noun=item.noun)
    after = c.with_items([other for other in c.scene.items if other is not item])
    return Edit("subject_remove", text, {"empty": item.id}, (item.id,), after)


def subject_replace(c: Context) -> Edit | None:
    singles, noun = c.singles(), c.new_noun(material=False)
    if not singles or noun is None:
        return None
    old, (shape, color, material) = c.rng.choice(singles), noun
    new = Item(c.next_id, shape, color, material, "", old.place, old.dx, old.dy)
    text = c.phrase(
        "Replace the {old} with {new}",
        "Swap the {old} for {new}",
        "Turn the {old} into {new}",
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
    text = c.phrase(
        "Make the {noun} {color}",
        "Paint the {noun} {color}",
        "Change the color of the {noun} to {color}",
        noun=old.noun,
        color=color,
    )
    slots = {"shows": [old.id, ["color"], ["shape"]]}
    return Edit("color_alter", text, slots, (old.id,), c.replaced(old, old._replace(color=color)))


def material_alter(c: Context) -> Edit | None:
    singles = c.singles()
    if not singles:
        return None
    old = c.rng.choice([item for item in singles if not item.text] or singles)  # a label hides the fill
    material = c.rng.choice([m for m in c.level.materials if m != old.material])
    text = c.phrase(
        "Make the {noun} {material}",
        "Give the {noun} a {material} texture",
        "Change the {noun} to a {material} one",
        noun=old.noun,
        material=material,
    )
    slots = {"shows": [old.id, ["material"], ["shape", "color"]]}
    return Edit("material_alter", text, slots, (old.id,), c.replaced(old, old._replace(material=material)))


def text_change(c: Context) -> Edit | None:
    singles = c.singles()
    if not singles:
        return None
    labelled = [item for item in singles if item.text]
    old = c.rng.choice(labelled or singles)
    letter = c.rng.choice([letter for letter in c.level.letters if letter != old.text])
    if old.text:
        text = c.phrase(
            "Change the letter on the {noun} to {letter}",
            "Replace the letter on the {noun} with {letter}",
            noun=old.noun,
            letter=letter,
        )
    else:
        text = c.phrase(
            "Write {letter} on the {noun}", "Put the letter {letter} on the {noun}", noun=old.noun, letter=letter
        )
    slots = {"shows": [old.id, ["text"], ["shape", "color"]]}
    return Edit("text_change", text, slots, (old.id,), c.replaced(old, old._replace(text=letter)))


def position_change(c: Context) -> Edit | None:
    singles, free = c.singles(), c.scene.free_places(c.level.places)
    if not singles or not free:
        return None
    old, place = c.rng.choice(singles), c.rng.choice(free)
    # The offset goes along, as far as the new place has room for it.
    dx, dy = (min(max(d, low), high) for d, (low, high) in zip(old[6:], _ranges(c.level, place), strict=True))
    text = c.phrase(
        "Move the {noun} to the {place}",
        "Shift the {noun} to the {place}",
        "Bring the {noun} to the {place}",
        noun=old.noun,
        place=place_name(place, c.level.grid),
    )
    slots = {"shows": [old.id, ["shape", "color"], []], "empty": old.id}
    return Edit("position_change", text, slots, (old.id,), c.replaced(old, old._replace(place=place, dx=dx, dy=dy)))


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
    items, touched = list(c.scene.items), []
    for gone in group[number:]:
        items.remove(gone)
        touched.append(gone.id)
    for k in range(number - len(group)):
        last = group[-1].place
        place = min((p for p in free if p > last), default=None)
        place = min(free) if place is None else place
        free.remove(place)
        dx, dy = (min(max(d, low), high) for d, (low, high) in zip(item[6:], _ranges(c.level, place), strict=True))
        copy = item._replace(id=c.next_id + k, place=place, dx=dx, dy=dy)
        group.append(copy)
        items.append(copy)
        touched.append(copy.id)
    text = c.phrase(
        "Make it {number} {noun}",
        "There should be {number} {noun}",
        "Change the number of {noun} to {number}",
        number=NUMBERS[number],
        noun=f"{item.noun}" if number == 1 else plural(item.noun),
    )
    slots = {"count": [item.shape, item.color, number]}
    return Edit("count_change", text, slots, tuple(touched), c.with_items(items))


def background_change(c: Context) -> Edit | None:
    name = c.rng.choice([b for b in c.level.backgrounds if b != c.scene.background])
    text = c.phrase(
        "Change the background to {name}",
        "Replace the background with {name}",
        "Use {name} as the background",
        name=name,
    )
    return Edit("background_change", text, {"background": name}, (), c.scene._replace(background=name))


def plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _ranges(level: Level, place: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return level.offsets(place, 0), level.offsets(place, 1)


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
