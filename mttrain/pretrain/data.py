"""Training data of tiny-kontext: ShapesEdit's train split, rendered as it is needed.

Batch ``step`` is a function of the seed and the step alone, so a resumed run sees the very same data.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import NamedTuple

import numpy as np
import torch

from mteval.benchmarks.shapes.generate import BUCKETS, SIZES, make_session, start_scene
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.world import Level


class Pairs(NamedTuple):
    """``source`` and ``target`` [n, 3, h, w] in -1..1, and the instruction between them."""

    source: torch.Tensor
    target: torch.Tensor
    instructions: list[str]


def to_tensor(pixels: list[np.ndarray]) -> torch.Tensor:  # type: ignore[type-arg]
    """[h, w, 3] of 0..255 each -> [n, 3, h, w] in -1..1."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def pictures(level: Level, seed: int, step: int, count: int) -> torch.Tensor:
    """[count, 3, h, w]: crowded start scenes of the train split, which have more detail for the codec to learn."""
    rng = Random(f"codec/{seed}/{step}")
    crowded = replace(level, items=(level.places - 3, level.places))
    draw = renderer(level).pixels
    found = []
    while len(found) < count:
        scene = start_scene(crowded, rng)
        if scene.bucket() in BUCKETS["train"]:
            found.append(draw(scene))
    return to_tensor(found)


def pairs(level: Level, seed: int, step: int, count: int, turns: int) -> Pairs:
    """Single edits from clean inputs: whole reference sessions of the train split, cut into their turns.

    Every turn's input is the exact reference state before it, never an image that a model made.
    """
    rng = Random(f"flow/{seed}/{step}")
    draw = renderer(level).pixels
    source, target, instructions = [], [], []
    while len(source) < count:
        session = make_session(level, "train", seed, rng.randrange(SIZES["train"]), turns)
        scenes = [session.start, *(turn.target for turn in session.turns)]
        # A few turns of each session: more sessions a batch, and still every turn's kind of scene.
        for t in rng.sample(range(turns), min(2, turns)):
            source.append(draw(scenes[t]))
            target.append(draw(scenes[t + 1]))
            instructions.append(session.turns[t].instruction)
    return Pairs(to_tensor(source[:count]), to_tensor(target[:count]), instructions[:count])
