"""The learning rate over a run: warm-up, a plateau, a linear decay (Hägele et al. 2024, arXiv 2405.18392).

On the plateau nothing depends on how long the run will be.
"""

from __future__ import annotations

DECAY = 0.4  # the last part of a run, as a share of its steps


def decay_start(steps: int) -> int:
    """The first step of the decay."""
    return round((1 - DECAY) * steps)


def schedule(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at ``step`` (from 0) of ``steps``; between 0 and 1."""
    start = decay_start(steps)
    return min(1.0, (step + 1) / warmup, (steps - step) / (steps - start))
