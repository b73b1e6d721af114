"""The contract of an objective: how samples are drawn, and what of them is a loss.

A third objective is one file and one line in ``mttrain/objectives/__init__.py``. Its settings are a pydantic model
named ``Settings`` in the class; what a recipe writes beside the objective's name are these settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from mteval.editors.flow import Condition
from mttrain.policy import Policy
from mttrain.recipe import Part
from mttrain.rollouts import Edits, Path
from mttrain.weights import CURRENT

Need = Literal["rewards", "target", "clean"]
Inputs = Literal["own", "clean"]


class Objective(ABC):
    """What the loop asks of an objective; the defaults suit one that samples along the ODE.

    Attributes:
        needs: ``rewards``; ``target``, the reference state after each turn; ``clean``, the one before it.
        inputs: ``own``, the policy's own last image, or ``clean``, the reference state (then nothing is sampled).
        sets: named weights that it keeps beside the current ones; made from the current weights at the start.
        samples_with: the weights that make the rollouts.
        shared_start: whether the members of a group start from the same noise at a turn.
        passes: how often each edit is trained on in an iteration.
    """

    class Settings(Part):
        """No settings."""

    needs: frozenset[Need] = frozenset({"rewards"})
    inputs: Inputs = "own"
    sets: tuple[str, ...] = ()
    samples_with: str = CURRENT
    shared_start: bool = False
    passes: int = 1

    def __init__(self, settings: Part) -> None:  # noqa: B027 - nothing to set up by default
        """``settings`` is an instance of the class's own ``Settings``."""

    def begin(self, seed: int, iteration: int, steps: int, updates: int) -> None:  # noqa: B027 - optional
        """A new iteration, or one that is resumed.

        Args:
            steps: length of the sampler's schedule. updates: optimiser steps of the whole run so far.
        """

    def sample(
        self, policy: Policy, noise: torch.Tensor, condition: Condition, seeds: Sequence[int]
    ) -> tuple[torch.Tensor, Path | None]:
        """From noise to x_0, both [n, tokens, channels]."""
        return policy.sample(noise, condition), None

    def extra_forwards(self, updates: int) -> float:
        """Forwards without a gradient beside each training pass, on average, with ``updates`` an iteration."""
        return len(set(self.sets) - {self.samples_with})

    @abstractmethod
    def loss(
        self, policy: Policy, edits: Edits, advantages: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Pass ``index`` over a batch.

        Args:
            advantages: [n], float32.

        Returns:
            The loss of every edit, [n], and figures to log, each [n].
        """

    def replay(self, policy: Policy, edits: Edits) -> torch.Tensor | None:
        """How far the training forward is from the rollout's before any update, [n]; exactly 0 in exact arithmetic.

        None where the objective does not depend on it.
        """
        return None

    def updated(self, policy: Policy, updates: int) -> None:  # noqa: B027 - optional
        """An optimiser step is done; ``updates`` counts those of the whole run."""

    def ended(self, policy: Policy, updates: int) -> None:  # noqa: B027 - optional
        """An iteration with at least one optimiser step is over."""
