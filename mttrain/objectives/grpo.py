"""GRPO for flow matching: the sampler's steps inside a window are Gaussian, and PPO's clipped objective is theirs.

Flow-GRPO (arXiv 2505.05470) and its Fast variant, MixGRPO (2507.21802) for the window, GRPO-Guard (2510.22319) for the
normalised ratio. A step of the window is one training pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from mteval.editors.flow import Condition, euler
from mteval.errors import UsageError
from mteval.seeds import seed_of
from mttrain import sde
from mttrain.objectives.base import Objective
from mttrain.policy import Policy
from mttrain.recipe import Part
from mttrain.rollouts import Edits, Path

REFERENCE = "reference"


class Grpo(Objective):
    """See the module's docstring."""

    class Settings(Part):
        """How the sampler is made stochastic and how far an update may go.

        Attributes:
            kernel, level: see :mod:`mttrain.sde`.
            window: steps that are stochastic and trained; first, last: where it may begin and must have ended (last is
                exclusive; None = half of the schedule).
            clip: the ratio of mean log-probabilities stays within 1 - clip .. 1 + clip.
            shared_start: the members of a group start from the same noise (as in DanceGRPO), so that they differ by
                what the window drew and by nothing that is not trained.
            guard: GRPO-Guard's normalised ratio. kl: weight of the exact Gaussian KL to the start.
            log_probability: ``gaussian``, or Flow-CPS's ``constant-free`` form.
        """

        kernel: sde.Kernel = "flow-sde"
        level: float = Field(default=0.7, gt=0)
        window: int = Field(default=2, ge=1)
        first: int = Field(default=0, ge=0)
        last: int | None = None
        clip: float = Field(default=1e-4, gt=0)
        advantage_clip: float = Field(default=5.0, gt=0)
        shared_start: bool = False
        guard: bool = False
        kl: float = Field(default=0.0, ge=0)
        log_probability: Literal["gaussian", "constant-free"] = "gaussian"

        @model_validator(mode="after")
        def _guard_a_density(self) -> Self:
            if self.guard and self.log_probability != "gaussian":
                raise ValueError("guard corrects the bias of a Gaussian log-probability, not of the constant-free form")
            return self

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.passes = settings.window
        self.shared_start = settings.shared_start
        self.sets = (REFERENCE,) if settings.kl else ()
        self._start = 0

    def begin(self, seed: int, iteration: int, steps: int, updates: int) -> None:
        """Place the window, the same in all processes."""
        wanted = self.settings
        # The step to sigma 0 is never trained: its density is needle-sharp, and CPS has none there.
        last = min(steps - 1, max(steps // 2, wanted.first + wanted.window) if wanted.last is None else wanted.last)
        if last - wanted.window < wanted.first:
            raise UsageError(
                f"a window of {wanted.window} steps does not fit between steps {wanted.first} and {last} of the "
                f"sampler's {steps}: choose a smaller objective.window, or another objective.first or objective.last"
            )
        self._start = Random(seed_of(seed, "window", iteration)).randint(wanted.first, last - wanted.window)

    def sample(
        self, policy: Policy, noise: torch.Tensor, condition: Condition, seeds: Sequence[int]
    ) -> tuple[torch.Tensor, Path]:
        sigmas = policy.editor.sigmas(condition.size)
        window = range(self._start, self._start + self.passes)
        kept: list[tuple[torch.Tensor, ...]] = []

        def step(k: int, latents: torch.Tensor, velocity: torch.Tensor, now: float, then: float) -> torch.Tensor:
            if k not in window:
                return euler(k, latents, velocity, now, then)
            drawn = policy.editor.noise([seed_of(seed, "step", k) for seed in seeds], condition.size).float()
            to = sde.gaussian(self.settings.kernel, self.settings.level, latents, velocity, sigmas, k)
            # What is stored and what the next step starts from is rounded first, then judged: else the ratio would not
            # be 1 before the first update.
            after = (to.mean + to.std * drawn).to(noise.dtype).float()
            kept.append((latents, after, to.mean, self._log_probability(after, to)))
            return after

        data = policy.sample(noise, condition, step)
        before, after, mean, log_probability = (torch.stack(column, 1) for column in zip(*kept, strict=True))
        start = torch.full((len(noise),), self._start)
        return data, Path(before, after, mean, log_probability, start)

    def loss(
        self, policy: Policy, edits: Edits, advantages: torch.Tensor, index: int
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        settings = self.settings
        path, step, sigmas = self._step(policy, edits, index)
        before, after = path.before[:, index], path.after[:, index]
        sigma = torch.full((len(before),), sigmas[step], device=before.device)
        reference = None
        if settings.kl:
            with torch.no_grad(), policy.weights.using(REFERENCE):
                velocity = policy.velocity(before, sigma, edits.condition)
                reference = sde.gaussian(settings.kernel, settings.level, before, velocity, sigmas, step)
        velocity = policy.velocity(before, sigma, edits.condition)
        to = sde.gaussian(settings.kernel, settings.level, before, velocity, sigmas, step)
        difference = self._log_probability(after, to) - path.log_probability[:, index]
        whole = difference.detach() * before[0].numel()
        advantages = advantages.clamp(-settings.advantage_clip, settings.advantage_clip)
        scale = 1.0
        if settings.guard:
            moved = (to.mean - path.mean[:, index]).square().flatten(1).mean(1)
            difference = (difference + moved / (2 * to.std**2)) * to.std
            scale = sigmas[step] - sigmas[step + 1]
        loss, figures = clipped(difference.exp(), advantages, settings.clip)
        loss = loss / scale
        if settings.log_probability == "gaussian":
            figures["log_ratio"] = whole
        if reference is not None:
            kl = sde.kl(to, reference)
            loss = loss + settings.kl * kl
            figures["kl"] = kl.detach()
        return loss, figures

    def replay(self, policy: Policy, edits: Edits) -> torch.Tensor:
        """|ratio - 1|, the largest of the window."""
        found = []
        for index in range(self.passes):
            path, step, sigmas = self._step(policy, edits, index)
            before = path.before[:, index]
            sigma = torch.full((len(before),), sigmas[step], device=before.device)
            velocity = policy.velocity(before, sigma, edits.condition).detach()
            to = sde.gaussian(self.settings.kernel, self.settings.level, before, velocity, sigmas, step)
            difference = self._log_probability(path.after[:, index], to) - path.log_probability[:, index]
            found.append((difference.exp() - 1).abs())
        return torch.stack(found).amax(0)

    def _step(self, policy: Policy, edits: Edits, index: int) -> tuple[Path, int, list[float]]:
        if edits.path is None:
            raise ValueError("these edits were not sampled by this objective")
        return edits.path, int(edits.path.start[0]) + index, policy.editor.sigmas(edits.condition.size)

    def _log_probability(self, latents: torch.Tensor, of: sde.Gaussian) -> torch.Tensor:
        how = sde.log_probability if self.settings.log_probability == "gaussian" else sde.constant_free
        return how(latents, of)


def clipped(ratio: torch.Tensor, advantages: torch.Tensor, clip: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """PPO's pessimistic loss max(-A rho, -A clip(rho)), [n], and its figures."""
    bounded = ratio.clamp(1 - clip, 1 + clip)
    loss = torch.maximum(-advantages * ratio, -advantages * bounded)
    beyond = torch.where(advantages > 0, ratio > 1 + clip, ratio < 1 - clip)
    return loss, {"ratio_distance": (ratio - 1).abs().detach(), "clipped": beyond.float()}
