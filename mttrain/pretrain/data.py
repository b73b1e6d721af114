"""Training data of tiny-kontext: ShapesEdit's train split, rendered as it is needed.

Batch ``step`` is a function of the seed and the step alone, so a resumed run sees the very same data.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from mteval.benchmarks.shapes.generate import BUCKETS, start_scene
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.world import Level

Pixels = NDArray[np.uint8]


def to_tensor(pixels: list[Pixels]) -> torch.Tensor:
    """[h, w, 3] of 0..255 each -> [n, 3, h, w] in -1..1."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def pictures(level: Level, seed: int, step: int, count: int) -> torch.Tensor:
    """[count, 3, h, w]: crowded start scenes of the train split, which have more detail for the codec to learn."""
    rng = Random(f"codec/{seed}/{step}")
    crowded = replace(level, items=(level.items[0] + 1, level.places))
    draw = renderer(level).pixels
    found: list[Pixels] = []
    while len(found) < count:
        scene = start_scene(crowded, rng)
        if scene.bucket() in BUCKETS["train"]:
            found.append(draw(scene))
    return to_tensor(found)
