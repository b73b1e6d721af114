"""Flow matching towards the reference states: the rivals that reinforcement learning is held against.

``supervised`` learns from clean inputs, as pretraining does; ``drifted`` learns from the policy's own last images
towards the same reference states. Both need a benchmark that has reference states, which photos do not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field

from mttrain.objectives.base import Inputs, Need, Objective
from mttrain.objectives.forward import noised
from mttrain.policy import Policy
from mttrain.recipe import Part
from mttrain.rollouts import Edits


class Supervised(Objective):
    """mean (v - (e - x_0))^2, where x_0 is the reference state after the turn."""

    class Settings(Part):
        """``passes`` are the sigmas an edit is trained at: between the sampler's steps too, or only at them."""

        passes: int = Field(default=1, ge=1)
        between: bool = True

    needs: frozenset[Need] = frozenset({"target"})
    inputs: Inputs = "clean"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.passes = settings.passes

    def loss(
        self, policy: Policy, edits: Edits, advantages: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        if edits.target is None:
            raise ValueError("these edits have no targets")
        data = edits.target.float()
        x = noised(policy, edits, data, index, between=self.settings.between)
        velocity = policy.velocity(x.latents, x.sigma, edits.condition)
        return (velocity - (x.noise - data)).square().flatten(1).mean(1), {}


class Drifted(Supervised):
    """The same from the policy's own inputs."""

    inputs: Inputs = "own"
