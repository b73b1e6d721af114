"""Training state on disk: tensors in safetensors, the step beside them in the same file's header. No pickle."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn


class Ema:
    """An exponential moving average of a module's parameters, kept in float32.

    The decay warms up as (1 + step) / (10 + step), so that early averages do not remember the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        current = dict(module.named_parameters())
        # One fused call: tiny models have hundreds of small tensors.
        torch._foreach_lerp_(list(self.parameters.values()), [current[n] for n in self.parameters], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            parameter.copy_(self.parameters[name])


Optimizers = Sequence[torch.optim.Optimizer]


def _flat(module: nn.Module, optimizers: Optimizers, ema: Ema) -> Iterator[tuple[str, torch.Tensor]]:
    names = {id(p): name for name, p in module.named_parameters()}
    yield from ((f"model/{name}", p.detach()) for name, p in module.named_parameters())
    yield from ((f"ema/{name}", p) for name, p in ema.parameters.items())
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            yield from ((f"optimizer/{key}/{names[id(parameter)]}", value) for key, value in state.items())


def save(path: Path, module: nn.Module, optimizers: Optimizers, ema: Ema, meta: Mapping[str, str]) -> None:
    """Write everything a step needs to go on; the file is replaced in one move."""
    tensors = {name: tensor.contiguous() for name, tensor in _flat(module, optimizers, ema)}
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata=dict(meta))
    os.replace(temporary, path)


def load(path: Path, module: nn.Module, optimizers: Optimizers, ema: Ema) -> dict[str, str]:
    """Put a saved state back and return its meta data; without optimisers, the weights alone."""
    parameters = dict(module.named_parameters())
    owners = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for key in file.keys():  # noqa: SIM118 - not a mapping
            kind, _, rest = key.partition("/")
            tensor = file.get_tensor(key)
            if kind == "model":
                parameters[rest].copy_(tensor)
            elif kind == "ema":
                ema.parameters[rest].copy_(tensor)
            elif optimizers:
                name, _, parameter = rest.partition("/")
                owners[id(parameters[parameter])].state[parameters[parameter]][name] = tensor
        return dict(file.metadata())
