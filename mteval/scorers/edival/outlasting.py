"""What is left of an earlier instruction once later ones are carried out in the same image (single-shot)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mteval.sessions import Session, Turn

_TAKING = ("subject_remove", "subject_replace")
_RENAMING = ("color_alter", "material_alter")
_ONCE = (*_RENAMING, "position_change", "count_change", "text_change")
"""Types of which a second one on the same object leaves nothing of the first."""


def overtaken(session: Session, judged: int, turn: int) -> str | None:
    """Why nothing of instruction ``judged`` can be seen after ``turn``; None where something can.

    An object is followed through its new names (a colour or a material changes it) by the objects that the benchmark
    says are there after each turn.
    """
    asked = session.turns[judged - 1]
    names = _made(session, judged)
    for later in range(judged + 1, turn + 1):
        other = session.turns[later - 1]
        if other.task_type == "background_change":
            if asked.task_type == "background_change":
                return f"turn {later} changes the background again"
            kept = {*other.slots.get("available_objects", names), *other.slots.get("kept_objects", ())}
            if names and not names & kept:
                return f"the background of turn {later} keeps no {' or '.join(sorted(names))}"
        if asked.task_type == "subject_remove" and asked.slots["object"] in _brought(other):
            return f"turn {later} brings {asked.slots['object']} back"
        touched = other.slots.get("object")
        if touched not in names:
            continue
        if other.task_type in _TAKING:
            return f"turn {later} takes {touched} away"
        again = other.task_type == asked.task_type and other.task_type in _ONCE
        elsewhere = other.task_type == "position_change" and "direction" in asked.slots
        if again or elsewhere:
            return f"turn {later} changes {touched} again"
        if other.task_type in _RENAMING:
            names |= _new(session, later)
    return None


def outlasting(session: Session, judged: int, turn: int) -> Mapping[str, Any]:
    """The slots of an instruction, without objects to be kept that a later one takes away or renames."""
    slots = session.turns[judged - 1].slots
    if "kept_objects" not in slots:
        return slots
    gone = {
        other.slots.get("object") for other in session.turns[judged:turn] if other.task_type in (*_TAKING, *_RENAMING)
    }
    return {**slots, "kept_objects": [name for name in slots["kept_objects"] if name not in gone]}


def _made(session: Session, judged: int) -> set[str]:
    """The names of what an instruction is about, after it."""
    turn = session.turns[judged - 1]
    if turn.task_type in ("subject_remove", "background_change"):
        return set()
    if turn.task_type == "subject_replace":
        return {turn.slots["new_object"]}
    if turn.task_type in _RENAMING:
        return _new(session, judged) or {turn.slots["object"]}
    return {turn.slots["object"]} if "object" in turn.slots else set()


def _brought(turn: Turn) -> set[str | None]:
    """What a turn puts into the image."""
    added = turn.slots.get("object") if turn.task_type == "subject_add" else None
    return {added, turn.slots.get("new_object")}


def _new(session: Session, turn: int) -> set[str]:
    """The objects that are there after a turn and were not before."""
    there = [state.slots.get("available_objects", ()) for state in session.turns[:turn]]
    before = there[turn - 2] if turn > 1 else session.turns[0].slots.get("unchanged_objects", ())
    return set(there[turn - 1]) - set(before)
