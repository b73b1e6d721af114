"""The Muon optimiser (Jordan et al. 2024), for the convolutions of the codec.

torch.optim.Muon is not used because it orthogonalises in bfloat16, which most CPUs do many times slower than float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix, [out, in * height * width], is replaced by the nearest orthogonal one."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                average = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                average.lerp_(gradient, 1 - group["momentum"])
                update = orthogonal(gradient.lerp(average, group["momentum"]).flatten(1))
                gain = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.sub_(update.view(parameter.shape), alpha=group["lr"] * gain)


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration: every singular value of ``matrix`` goes near 1 (the quintic is the source's).

    The polynomials are multiplied up on the small Gram matrix and meet ``matrix`` once: half the time for wide ones.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    identity = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    product = identity
    for _ in range(steps):
        factor = a * identity + (b * gram + c * gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    result: torch.Tensor = product @ x
    return result.T if tall else result
