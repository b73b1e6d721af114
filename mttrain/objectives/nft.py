"""DiffusionNFT (arXiv 2509.16117): policy improvement on the forward process; no trajectory, no log-probability.

With the optimality probability r of an edit and the velocities v of the current and v_old of the old policy at a noised
x_0 of the old policy's making::

    v+ = b v + (1 - b) v_old          v- = (1 + b) v_old - b v
    L  = c / b (r |x_s - s v+ - x_0|^2 / w+ + (1 - r) |x_s - s v- - x_0|^2 / w-) + kl |v - v_ref|^2

where |.|^2 is a mean over elements, w the mean absolute error of the same prediction (no gradient), c the advantage
clip and r = 1/2 + clip(A, -c, c) / (2 c). At v = v_old the gradient is that of A |x_s - s v - x_0|^2 / w, whatever b.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field

from mttrain.objectives.base import Objective
from mttrain.objectives.forward import noised
from mttrain.policy import Policy
from mttrain.recipe import Part
from mttrain.rollouts import Edits

OLD, REFERENCE = "old", "reference"
_LEAST_WEIGHT = 1e-5

OldPolicy = Literal["on-policy", "ramp", "late"]


def old_decay(schedule: OldPolicy, updates: int) -> float:
    """d of old <- d old + (1 - d) current, after ``updates`` optimiser steps (DiffusionNFT's types 0, 1 and 2)."""
    if schedule == "on-policy":
        return 0.0
    if schedule == "ramp":
        return min(0.001 * updates, 0.5)
    return 0.0 if updates < 75 else min(0.0075 * (updates - 75), 0.999)


class Nft(Objective):
    """See the module's docstring."""

    class Settings(Part):
        """``beta`` is b, ``kl`` the weight of the distance to the start, ``passes`` the sigmas an edit is trained at.

        ``first`` keeps to the sampler's first so many sigmas, where it is decided what is made.
        ``old`` is how the old policy follows: at once, or ever more slowly. ``shared_noise`` noises all members of a
        group alike.
        """

        beta: float = Field(default=1.0, gt=0)
        kl: float = Field(default=0.0, ge=0)
        advantage_clip: float = Field(default=5.0, gt=0)
        passes: int = Field(default=1, ge=1)
        first: int | None = Field(default=None, ge=1)
        old: OldPolicy = "on-policy"
        shared_noise: bool = True

    samples_with = OLD

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.passes = settings.passes
        self.sets = (OLD, REFERENCE) if settings.kl else (OLD,)
        self._apart = False

    def begin(self, seed: int, iteration: int, steps: int, updates: int) -> None:
        self._apart = updates > 0 and old_decay(self.settings.old, updates) > 0

    def extra_forwards(self, updates: int) -> float:
        spared = 1 / updates if self.settings.old == "on-policy" else 0  # before the first update old is current
        return len(self.sets) - spared

    def loss(
        self, policy: Policy, edits: Edits, advantages: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        settings, data = self.settings, edits.latents.float()
        x = noised(policy, edits, data, index, shared=settings.shared_noise, first=settings.first)
        velocities = {}
        with torch.no_grad():
            for name in self.sets:
                if name == REFERENCE or self._apart:
                    with policy.weights.using(name):
                        velocities[name] = policy.velocity(x.latents, x.sigma, edits.condition)
        v = policy.velocity(x.latents, x.sigma, edits.condition)
        old = velocities.get(OLD, v.detach())  # before the first update of an iteration they are the same
        optimal = 0.5 + advantages.clamp(-settings.advantage_clip, settings.advantage_clip) / (
            2 * settings.advantage_clip
        )
        positive = _matching(x.latents - x.level * torch.lerp(old, v, settings.beta), data)
        negative = _matching(x.latents - x.level * torch.lerp(old, v, -settings.beta), data)
        loss = settings.advantage_clip / settings.beta * (optimal * positive + (1 - optimal) * negative)
        figures = {"old_distance": (v.detach() - old).square().flatten(1).mean(1)}
        if settings.kl:
            distance = (v - velocities[REFERENCE]).square().flatten(1).mean(1)
            loss = loss + settings.kl * distance
            figures["reference_distance"] = distance.detach()
        return loss, figures

    def replay(self, policy: Policy, edits: Edits) -> torch.Tensor:
        """|v - v_old| over the size of v_old."""
        x = noised(policy, edits, edits.latents, 0)
        with torch.no_grad(), policy.weights.using(OLD):
            old = policy.velocity(x.latents, x.sigma, edits.condition)
        v = policy.velocity(x.latents, x.sigma, edits.condition).detach()
        return (v - old).abs().flatten(1).amax(1) / old.abs().flatten(1).amax(1)

    def updated(self, policy: Policy, updates: int) -> None:
        self._apart = True

    def ended(self, policy: Policy, updates: int) -> None:
        decay = old_decay(self.settings.old, updates)
        if decay:
            policy.weights.blend(OLD, 1 - decay)
        else:
            policy.weights.keep(OLD)


def _matching(predicted: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """[n]: mean squared error over the mean absolute error, the latter without gradient and in float64."""
    error = predicted - data
    weight = error.detach().double().abs().flatten(1).mean(1).clamp_min(_LEAST_WEIGHT)
    return error.square().flatten(1).mean(1) / weight.float()
