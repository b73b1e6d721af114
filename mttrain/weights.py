"""Named sets of values of the same parameters: the old policy, the reference, the moving average.

A set is a copy on the parameters' own device; to use one is to copy it in and the current values back after. With a
LoRA a set is only the adapter (the reference is the untrained one, which adds exactly 0); the same code serves full
weights, wrapped and sharded modules, and a compiled network stays compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor

CURRENT = "current"
AVERAGE = "average"


def warmed(decay: float, step: int) -> float:
    """The decay of a moving average at ``step``: an early average does not remember the random start."""
    return min(decay, (1 + step) / (10 + step))


class WeightSets:
    """Named copies of ``parameters``."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.sets: dict[str, dict[str, torch.Tensor]] = {}

    @property
    def sharded(self) -> bool:
        """Whether each process holds only a part of the parameters, so that a forward takes all of them."""
        return any(isinstance(parameter, DTensor) for parameter in self.parameters.values())

    def keep(self, name: str) -> None:
        """Make or overwrite the set ``name`` with the current values."""
        self.sets[name] = {key: parameter.detach().clone() for key, parameter in self.parameters.items()}

    @torch.no_grad()
    def blend(self, name: str, share: float) -> None:
        """Move the set ``name`` towards the current values: (1 - share) of itself and ``share`` of them."""
        # One fused call: tiny models have hundreds of small tensors.
        torch._foreach_lerp_(_local(self.sets[name].values()), _local(self.parameters.values()), share)

    def take(self, name: str) -> None:
        """Make the values of the set ``name`` the current ones."""
        self._write(list(self.sets[name].values()))

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Within it the parameters have the values of the set ``name``; not while a backward pass is pending."""
        if name == CURRENT:
            yield
            return
        current = [parameter.detach().clone() for parameter in self.parameters.values()]
        self._write(list(self.sets[name].values()))
        try:
            yield
        finally:
            self._write(current)

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        torch._foreach_copy_(_local(self.parameters.values()), _local(values))


def _local(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Without gradient; of sharded ones this process's own part, which elementwise arithmetic needs alone."""
    detached = (tensor.detach() for tensor in tensors)
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in detached]
