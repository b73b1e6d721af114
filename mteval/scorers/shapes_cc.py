"""Content consistency on ShapesEdit: what no turn touched must still be there, pixel for pixel.

A part's value is 1 - mean |a - b| over its pixels, RGB in [0, 1]:

- ``object``: the mean over the items of I_0 that no turn up to t touched, I_0 against I_t;
- ``background``: every pixel outside the items of I_0 and outside all touched up to t; a background change ends it;
- ``step_object``, ``step_background``: the same for this turn alone, I_{t-1} against I_t (not for single-shot, which
  has no I_{t-1}).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mteval.benchmarks.shapes.look import footprint
from mteval.benchmarks.shapes.render import looks, renderer
from mteval.benchmarks.shapes.world import LEVELS, Item, Level, Scene, read_scene
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.sessions import Turn


class ShapesContentConsistency:
    """The value is the mean of the ``object`` and ``background`` parts that there are."""

    @property
    def info(self) -> ScorerInfo:
        return ScorerInfo("shapes-cc", "content_consistency", low=0, high=1)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return [_judge(view) for view in batch]

    def read_state(self, plain: Any) -> Scene:
        return read_scene(plain)


def _judge(view: TurnView) -> Score:
    level = LEVELS[view.session.start.level]
    if view.current.size != (level.size, level.size):
        return Score("infra_error", reason=f"the image is {view.current.size}, the level has {level.size} px a side")
    scenes = [view.session.start, *(turn.target for turn in view.session.turns[: view.turn])]
    turns = view.session.turns[: view.turn]
    parts = _parts(level, scenes, turns, view.source, view.current)
    if view.protocol != "single-shot":
        step = _parts(level, scenes[-2:], turns[-1:], view.previous, view.current)
        parts.update({f"step_{name}": value for name, value in step.items()})
    whole = [parts[name] for name in ("object", "background") if name in parts]
    if not whole:
        return Score("not_applicable", parts=parts, reason="the turns touched everything there was")
    told = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
    return Score("ok", float(np.mean(whole)), parts=parts, reason=told)


def _parts(
    level: Level, scenes: Sequence[Scene], turns: Sequence[Turn], before: Image.Image, after: Image.Image
) -> dict[str, float]:
    """The parts of one stretch of turns; ``scenes`` are the states around them (one more than turns)."""
    touched_ids = {id for turn in turns for id in turn.slots["touched"]}
    touched = {item for scene in scenes for item in scene.items if item.id in touched_ids}
    changed = footprint(level, list(touched))
    red, green, blue = np.moveaxis(np.abs(np.asarray(after, np.int16) - np.asarray(before, np.int16)), 2, 0)
    # Sums of planes are much quicker than one sum over axis 2.
    difference = (red + green + blue) / np.float32(3 * 255)
    parts: dict[str, float] = {}
    kept = [item for item in scenes[0].items if item.id not in touched_ids]
    values = [_consistency(difference, _visible(level, item, scenes[0]) & ~changed) for item in kept]
    seen = [value for value in values if value is not None]
    if seen:
        parts["object"] = float(np.mean(seen))
    if all(turn.task_type != "background_change" for turn in turns):
        value = _consistency(difference, ~(changed | footprint(level, list(scenes[0].items))))
        if value is not None:
            parts["background"] = value
    return parts


def _visible(level: Level, item: Item, scene: Scene) -> NDArray[np.bool_]:
    """The pixels that the item covers wholly and no item drawn after it reaches: its edge is partly background."""
    draw = renderer(level)
    mask = np.zeros((level.size, level.size), bool)
    mask[draw.box(item)] = draw.patch(looks(item)).show[..., 0] == 0
    return mask & ~footprint(level, [other for other in scene.items if other.place > item.place])


def _consistency(difference: NDArray[np.float32], mask: NDArray[np.bool_]) -> float | None:
    return 1 - float(difference[mask].mean()) if mask.any() else None
