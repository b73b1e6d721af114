"""The forward process, which every objective without a trajectory draws its training points from."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import torch

from mteval.seeds import seed_of
from mttrain.policy import Policy
from mttrain.rollouts import Edits


class Noised(NamedTuple):
    """x_s = (1 - s) x_0 + s e: ``latents`` and ``noise`` [n, tokens, channels], ``sigma`` [n]."""

    latents: torch.Tensor
    noise: torch.Tensor
    sigma: torch.Tensor

    @property
    def level(self) -> torch.Tensor:
        """sigma as [n, 1, 1]."""
        return self.sigma[:, None, None]


def noised(
    policy: Policy,
    edits: Edits,
    data: torch.Tensor,
    index: int,
    *,
    between: bool = False,
    shared: bool = False,
    first: int | None = None,
) -> Noised:
    """Noise ``data`` [n, tokens, channels] for pass ``index``, each edit from its own seed.

    With ``shared`` the members of a group get the same sigma and noise at a turn: advantages sum to 0 over a group, so
    whatever the noise does to all its members alike cancels in the gradient.

    sigma is one that the sampler itself visits: each edit runs through them in an order of its own, one a pass. With
    ``between`` it is uniform in the sampler's schedule, its steps joined by straight lines. Of the steps only the
    ``first`` so many are used, all if None.
    """
    schedule = policy.editor.sigmas(edits.condition.size)
    roots = edits.shared if shared else edits.seeds
    seeds = [seed_of(seed, "forward", index) for seed in roots]
    if between:
        picked = [_between(schedule, Random(seed).random()) for seed in seeds]
    else:
        steps = min(len(schedule) - 1, first or len(schedule))
        orders = (Random(seed_of(seed, "order", index // steps)).sample(range(steps), steps) for seed in roots)
        picked = [schedule[order[index % steps]] for order in orders]
    sigma = torch.tensor(picked, device=data.device, dtype=torch.float32)
    noise = policy.editor.noise(seeds, edits.condition.size).float()
    return Noised(torch.lerp(data.float(), noise, sigma[:, None, None]), noise, sigma)


def _between(schedule: Sequence[float], share: float) -> float:
    steps = len(schedule) - 1
    return float(np.interp(share * steps, range(steps + 1), schedule))
