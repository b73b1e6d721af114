"""Advantage-weighted matching (AWM, arXiv 2509.25050): the flow-matching loss in place of a log-probability.

lp = - mean (v - (e - x_0))^2 at a noised x_0 of the policy's own making; then PPO's clipped objective on
exp(lp - lp_old), with a clip so wide that it only stops runaways.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field

from mttrain.objectives.base import Objective
from mttrain.objectives.forward import noised
from mttrain.objectives.grpo import clipped
from mttrain.policy import Policy
from mttrain.recipe import Part
from mttrain.rollouts import Edits

OLD = "old"


class Awm(Objective):
    """See the module's docstring."""

    class Settings(Part):
        """``clip`` of the ratio; ``passes`` are the sigmas an edit is trained at."""

        clip: float = Field(default=1.0, gt=0)
        advantage_clip: float = Field(default=5.0, gt=0)
        passes: int = Field(default=1, ge=1)

    sets = (OLD,)
    samples_with = OLD

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.passes = settings.passes
        self._apart = False

    def begin(self, seed: int, iteration: int, steps: int, updates: int) -> None:
        self._apart = False

    def loss(
        self, policy: Policy, edits: Edits, advantages: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        data = edits.latents.float()
        x = noised(policy, edits, data, index)
        wanted = (x.noise - data).double()
        old = None
        if self._apart:
            with torch.no_grad(), policy.weights.using(OLD):
                old = policy.velocity(x.latents, x.sigma, edits.condition)
        error = (policy.velocity(x.latents, x.sigma, edits.condition) - wanted).square().flatten(1).mean(1)
        before = error.detach() if old is None else (old - wanted).square().flatten(1).mean(1)
        clip = self.settings.advantage_clip
        return clipped((before - error).exp().float(), advantages.clamp(-clip, clip), self.settings.clip)

    def updated(self, policy: Policy, updates: int) -> None:
        self._apart = True

    def ended(self, policy: Policy, updates: int) -> None:
        policy.weights.keep(OLD)
