"""Steps of a stochastic sampler with their Gaussian densities.

sigma runs from 1 (noise) to 0 (data); a step goes from ``now`` to ``then`` < ``now``, dt = then - now < 0, and the
network predicts v = e - x_0. Every kernel gives mean and standard deviation of the next latents; all arithmetic is in
float32. Two kernels:

- ``flow-sde`` (Flow-GRPO): std = a sqrt(now / (1 - now)) sqrt(-dt), where now = 1 takes the sampler's next sigma in
  the denominator. It converges to the marginal of the ODE as the steps get finer.
- ``cps`` (Flow-CPS): std = then sin(a pi / 2). It keeps the amount of noise that the network expects at every step,
  and not the marginal, however fine the steps. Its last step has no noise, so no density.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

Kernel = Literal["flow-sde", "cps"]


class Gaussian(NamedTuple):
    """The distribution of the next latents: ``mean`` [n, tokens, channels], ``std`` of every element."""

    mean: torch.Tensor
    std: float


def gaussian(
    kernel: Kernel, level: float, latents: torch.Tensor, velocity: torch.Tensor, sigmas: Sequence[float], step: int
) -> Gaussian:
    """Where step ``step`` (from 0) of the schedule ``sigmas`` leads, at noise level ``level`` (a above)."""
    now, then = sigmas[step], sigmas[step + 1]
    x, v = latents.float(), velocity.float()
    if kernel == "cps":
        std = then * math.sin(level * math.pi / 2)
        data, noise = x - now * v, x + (1 - now) * v
        return Gaussian((1 - then) * data + math.sqrt(then**2 - std**2) * noise, std)
    dt = then - now
    diffusion = level * math.sqrt(now / (1 - (sigmas[1] if now > 1 - 1e-6 else now)))
    drift = diffusion**2 / (2 * now)
    mean = x * (1 + drift * dt) + v * (1 + drift * (1 - now)) * dt
    return Gaussian(mean, diffusion * math.sqrt(-dt))


def log_probability(latents: torch.Tensor, of: Gaussian) -> torch.Tensor:
    """[n]: the log density, MEAN over the elements of an item, which is what published clip ranges assume.

    Times the number of elements it is the true log density.
    """
    squared = ((latents.float() - of.mean) / of.std).square()
    return (-0.5 * squared - math.log(of.std) - 0.5 * math.log(2 * math.pi)).flatten(1).mean(1)


def constant_free(latents: torch.Tensor, of: Gaussian) -> torch.Tensor:
    """[n]: - mean (x - mean)^2, what Flow-CPS publishes in place of a density: steps weigh as std^2."""
    return -(latents.float() - of.mean).square().flatten(1).mean(1)


def kl(of: Gaussian, reference: Gaussian) -> torch.Tensor:
    """[n]: KL(of || reference) of two Gaussians of one std, mean over the elements: (m - m')^2 / (2 std^2)."""
    return ((of.mean - reference.mean) / of.std).square().flatten(1).mean(1) / 2
