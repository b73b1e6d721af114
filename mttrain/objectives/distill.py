"""On-policy self-distillation from the clean condition (the idea of MT-OPSD): no reward.

The teacher is the policy at the start, shown the clean reference state; the student is shown its own last image. Where
the student goes, at noised x_0 of its own making, it learns to move as the teacher would: mean (v - v_teacher)^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import Field

from mttrain.objectives.base import Need, Objective
from mttrain.objectives.forward import noised
from mttrain.policy import Policy
from mttrain.recipe import Part
from mttrain.rollouts import Edits

TEACHER = "teacher"


class Distill(Objective):
    """See the module's docstring."""

    class Settings(Part):
        """``passes`` are the sigmas an edit is trained at."""

        passes: int = Field(default=1, ge=1)

    needs: frozenset[Need] = frozenset({"clean"})
    sets = (TEACHER,)

    def __init__(self, settings: Settings) -> None:
        self.passes = settings.passes

    def loss(
        self, policy: Policy, edits: Edits, advantages: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        if edits.clean is None:
            raise ValueError("these edits have no clean condition")
        x = noised(policy, edits, edits.latents, index)
        with torch.no_grad(), policy.weights.using(TEACHER):
            wanted = policy.velocity(x.latents, x.sigma, replace(edits.condition, image=edits.clean))
        velocity = policy.velocity(x.latents, x.sigma, edits.condition)
        return (velocity - wanted).square().flatten(1).mean(1), {}
