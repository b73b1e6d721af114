"""Multi-turn sessions from a seed.

The splits cannot share a start scene: each takes only start scenes whose hash falls into its own buckets. A session's
turns are drawn one after the other, so a session of 3 turns is the beginning of the same session of 10.
"""

from __future__ import annotations

from random import Random

from mteval.benchmarks.shapes.edits import EDITS, Context
from mteval.benchmarks.shapes.world import Item, Level, Scene, scene
from mteval.sessions import Session, Turn

# Split -> hash buckets (of 100) of its start scenes, and how many sessions it has.
BUCKETS: dict[str, range] = {"train": range(0, 80), "validation": range(80, 90), "test": range(90, 100)}
SIZES: dict[str, int] = {"train": 1_000_000, "validation": 1_000, "test": 4_000}


def start_scene(level: Level, rng: Random) -> Scene:
    """A random scene in which every noun is unique."""
    items: list[Item] = []
    nouns: set[str] = set()
    for place in rng.sample(range(level.places), rng.randint(*level.items)):
        while True:
            shape, color = rng.choice(level.shapes), rng.choice(level.colors)
            if f"{color} {shape}" not in nouns:
                break
        nouns.add(f"{color} {shape}")
        text = rng.choice(level.letters) if rng.random() < level.labelled else ""
        dx, dy = (rng.randint(*level.offsets(place, axis)) for axis in (0, 1))
        items.append(Item(len(items), shape, color, rng.choice(level.materials), text, place, dx, dy))
    return scene(level.name, rng.choice(level.backgrounds), items)


def make_session(level: Level, split: str, seed: int, index: int, turns: int) -> Session:
    """Session ``index`` of a split: types come in random order without repetition and start over when all are used.

    A type that the scene does not allow (nothing to remove, no free place) waits for a later turn.
    """
    rng = Random(f"{level.name}/{split}/{seed}/{index}")
    now = start = start_scene(level, rng)
    while start.bucket() not in BUCKETS[split]:
        now = start = start_scene(level, rng)
    made: list[Turn] = []
    bag: list[str] = []
    next_id = len(start.items)
    while len(made) < turns:
        bag = bag or rng.sample(list(EDITS), len(EDITS))
        for task_type in (*bag, *EDITS):
            edit = EDITS[task_type](Context(level, now, next_id, rng))
            if edit is not None:
                break
        else:  # background_change is always possible
            raise AssertionError("no edit is possible")
        if task_type in bag:
            bag.remove(task_type)
        else:  # nothing left in the bag is possible: the types start over
            bag = [other for other in rng.sample(list(EDITS), len(EDITS)) if other != task_type]
        slots = {**edit.slots, "touched": list(edit.touched)}
        made.append(Turn(edit.instruction, edit.task_type, slots, edit.after))
        now = edit.after
        next_id = max([next_id, *(item.id + 1 for item in now.items)])
    session_id = f"{split}-{index:05d}"
    return Session(session_id, session_id, tuple(made), start)
