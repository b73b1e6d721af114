"""Instructions read back: what they ask for is what the session's own slots and states say."""

from __future__ import annotations

from itertools import product

import pytest

from mteval.benchmarks.shapes import ShapesEdit
from mteval.benchmarks.shapes.edits import EDITS, WORDING
from mteval.benchmarks.shapes.words import _patterns, asked_by, carried_out, named
from mteval.benchmarks.shapes.world import LEVELS, Item, Scene, scene
from mteval.sessions import Session

TURNS, SESSIONS = 4, 2000


def states(session: Session) -> list[Scene]:
    return [session.start, *(turn.target for turn in session.turns)]


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_leads_to_its_own_slots_and_state(level: str) -> None:
    seen = set()
    for session in ShapesEdit(level=level, split="train", seed=7).sessions(TURNS, SESSIONS):
        next_id = 0
        for before, turn in zip(states(session), session.turns, strict=False):
            next_id = max([next_id, *(item.id + 1 for item in before.items)])
            asked = asked_by(turn.instruction)
            about = named(asked, before)
            edit = carried_out(asked, before, about[0] if about else None, next_id)
            assert edit.task_type == turn.task_type
            assert {**edit.slots, "touched": list(edit.touched)} == turn.slots
            assert edit.after == turn.target
            assert edit.instruction == turn.instruction
            if turn.task_type not in ("subject_add", "background_change", "count_change"):
                assert len(about) == 1
            seen |= {pattern.pattern for kind, pattern in _patterns() if pattern.fullmatch(turn.instruction)}
    assert seen == {pattern.pattern for _, pattern in _patterns()}, "every template was met"


def test_no_instruction_fits_two_templates() -> None:
    sessions = ShapesEdit(level="hard", split="train", seed=8).sessions(9, 300)
    for turn in (turn for session in sessions for turn in session.turns):
        assert [kind for kind, pattern in _patterns() if pattern.fullmatch(turn.instruction)] == [turn.task_type]


def test_every_type_has_its_wording() -> None:
    assert list(WORDING) == list(EDITS)


@pytest.mark.parametrize(
    "wrong", ["", "Make it nice", "Remove the mauve circle", "Remove the red circle now", "remove the red circle"]
)
def test_other_words_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no instruction of ShapesEdit"):
        asked_by(wrong)


def test_what_stands_in_the_way_goes() -> None:
    """In a picture that went astray a place may be taken: whatever comes there takes its place."""
    items = [Item(k, shape, color, "plain", "", k, 0, 0) for k, (shape, color) in enumerate(SOME)]
    full = scene("standard", "paper", items)
    moved = carried_out(asked_by("Move the red circle to the bottom right"), full, items[0])
    added = carried_out(asked_by("Add a dotted blue star at the top left"), full, None)
    assert [(item.noun, item.place) for item in moved.after.items if item.place in (0, 8)] == [("red circle", 8)]
    assert [(item.noun, item.place) for item in added.after.items if item.place == 0] == [("blue star", 0)]
    assert len(moved.after.items) == len(added.after.items) + -1 == 8
    with pytest.raises(ValueError, match="no room for three of red circle"):
        carried_out(asked_by("Make it three red circles"), full, items[0])


SOME = list(product(("circle", "square", "star"), ("red", "green", "yellow")))
