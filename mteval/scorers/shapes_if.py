"""Instruction following on ShapesEdit, judged from pixels: is what the instruction asked for there to be seen?

A turn's slots say what to look for:

- ``shows: [id, set, kept]``: the item ``id`` of the reference is seen at its place with the attributes that the turn
  ``set``, and with those it names but does not change (``kept``) as in the reference or as in the image before;
- ``empty: id``: nothing is left where the item ``id`` was before the turn;
- ``count: [shape, color, n]``: exactly n places show such an item;
- ``background: name``: every place shows that background.

A single-shot image is judged on what the reference after its last turn keeps of an earlier instruction: an attribute
changed again later is not looked at, and an instruction of which nothing is left is not applicable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mteval.benchmarks.shapes.look import TOLERANCE, Picture
from mteval.benchmarks.shapes.world import LEVELS, Item, Scene, read_scene
from mteval.scorers.base import Score, ScorerInfo, TurnView


class ShapesInstructionFollowing:
    """1 if every check of the judged instruction holds, else 0; how far a picture may be off is look.TOLERANCE."""

    @property
    def info(self) -> ScorerInfo:
        return ScorerInfo("shapes-if", "instruction_following", low=0, high=1, success_threshold=1)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return [_judge(view) for view in batch]

    def read_state(self, plain: Any) -> Scene:
        return read_scene(plain)


class _Check(NamedTuple):
    """One thing looked for: whether it holds, and what a person would say about it."""

    holds: bool
    reason: str


def _judge(view: TurnView) -> Score:
    level = LEVELS[view.session.start.level]
    picture = Picture(view.current, level)
    if not picture.fits:
        return Score("infra_error", reason=f"the image is {view.current.size}, the level has {level.size} px a side")
    before = _scene(view, view.judged - 1)
    set_to = _scene(view, view.judged)
    now = _scene(view, view.turn)
    later = _touched(view, view.judged + 1)
    slots = view.instruction.slots
    checks: list[_Check] = []
    if "shows" in slots:
        checks += _shows(view, picture, slots["shows"], before, set_to, now)
    if "empty" in slots:
        checks += _empty(picture, slots["empty"], before, now, later)
    if "count" in slots:
        checks += _count(picture, slots["count"], before, now)
    if "background" in slots and now.background == slots["background"]:
        checks += _background(picture, slots["background"], before, now)
    if not checks:
        return Score("not_applicable", reason=f"nothing is left of turn {view.judged} after turn {view.turn}")
    done = all(check.holds for check in checks)
    told = [check.reason for check in checks if check.holds == done]
    return Score("ok", float(done), reason="; ".join(told), evidence={"tolerance": TOLERANCE})


def _scene(view: TurnView, turn: int) -> Scene:
    found: Scene = view.session.start if turn == 0 else view.session.turns[turn - 1].target
    return found


def _touched(view: TurnView, first: int) -> set[int]:
    """The items that the turns ``first`` .. ``view.turn`` change, add or remove."""
    return {id for turn in view.session.turns[first - 1 : view.turn] for id in turn.slots["touched"]}


def _shows(
    view: TurnView, picture: Picture, slot: tuple[int, list[str], list[str]], before: Scene, set_to: Scene, now: Scene
) -> list[_Check]:
    id, set_names, kept_names = slot
    target, wanted = set_to.item(id), now.item(id)
    if target is None:
        raise ValueError(f"turn {view.judged} of session {view.session.id} sets an item that it does not have")
    if wanted is None:
        return []
    moved = view.instruction.task_type == "position_change"
    set_names = [name for name in set_names if getattr(wanted, name) == getattr(target, name)]
    if not set_names or (moved and wanted.place != target.place):
        return []
    seen = picture.item(wanted, now)
    if seen is None:
        return [_Check(False, f"no item is seen where the {wanted.noun} should be")]
    wrong = [name for name in set_names if getattr(seen, name) != getattr(wanted, name)]
    unkept = [name for name in kept_names if getattr(seen, name) != getattr(wanted, name)]
    if unkept and view.judged == view.turn:
        # An earlier turn may have left another item here: then this one has to keep what it found.
        shown = Picture(view.previous, picture.level)
        old = before.item(id)
        was = shown.item(old, before) if old and shown.fits else None
        unkept = [name for name in unkept if was is None or getattr(seen, name) != getattr(was, name)]
    if wrong or unkept:
        faults = [f"its {name} is {getattr(seen, name) or 'missing'}" for name in [*wrong, *unkept]]
        return [_Check(False, f"a {wanted.noun} should be here, but {' and '.join(faults)}")]
    shown_as = ", ".join(f"{name} {getattr(seen, name)}" for name in [*set_names, *kept_names])
    return [_Check(True, f"seen with {shown_as}")]


def _empty(picture: Picture, id: int, before: Scene, now: Scene, later: set[int]) -> list[_Check]:
    gone = before.item(id)
    if gone is None or any(item.place == gone.place for item in now.items) or id in later:
        return []  # something else is there by now, or the item was moved again
    if picture.empty(gone, now):
        return [_Check(True, f"the place of the {gone.noun} is empty")]
    left = picture.item(gone, now)
    what = f"a {left.noun}" if left else "something"
    return [_Check(False, f"{what} is left where the {gone.noun} was")]


def _count(picture: Picture, slot: tuple[str, str, int], before: Scene, now: Scene) -> list[_Check]:
    shape, color, number = slot
    named = [item for item in now.items if (item.shape, item.color) == (shape, color)]
    if len(named) != number:
        return []
    pattern = named[0]
    seen = 0
    for place in range(picture.level.places):
        where = _at(place, now) or _at(place, before) or _moved(pattern, place, picture)
        item = picture.item(where, now)
        seen += item is not None and (item.shape, item.color) == (shape, color)
    return [_Check(seen == number, f"{seen} of {number} {color} {shape} seen")]


def _at(place: int, scene: Scene) -> Item | None:
    return next((item for item in scene.items if item.place == place), None)


def _moved(item: Item, place: int, picture: Picture) -> Item:
    """The item at another place, with its offset as far as there is room."""
    (x0, x1), (y0, y1) = (picture.level.offsets(place, axis) for axis in (0, 1))
    return item._replace(place=place, dx=min(max(item.dx, x0), x1), dy=min(max(item.dy, y0), y1))


def _background(picture: Picture, name: str, before: Scene, now: Scene) -> list[_Check]:
    other = sorted({seen or "nothing known" for seen in picture.backgrounds(now, before) if seen != name})
    if other:
        return [_Check(False, f"{' and '.join(other)} is seen where {name} should be")]
    return [_Check(True, f"the background is {name} everywhere")]
