"""Training state on disk: tensors in safetensors, the rest as text in the same file's header. No pickle."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from mttrain.weights import CURRENT, WeightSets

Optimizers = Sequence[torch.optim.Optimizer]


def _flat(weights: WeightSets, optimizers: Optimizers) -> Iterator[tuple[str, torch.Tensor]]:
    names = {id(parameter): name for name, parameter in weights.parameters.items()}
    yield from ((f"{CURRENT}/{name}", parameter.detach()) for name, parameter in weights.parameters.items())
    for kind, values in weights.sets.items():
        yield from ((f"{kind}/{name}", value) for name, value in values.items())
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            yield from ((f"optimizer.{key}/{names[id(parameter)]}", value) for key, value in state.items())


def save(
    path: Path, weights: WeightSets, optimizers: Optimizers, meta: Mapping[str, str], *, write: bool = True
) -> None:
    """Write everything a step needs to go on; the file is replaced in one move.

    Args:
        write: False in all processes but one; sharded tensors are put together in all of them.
    """
    tensors = {name: _whole(tensor).contiguous() for name, tensor in _flat(weights, optimizers)}
    if not write:
        return
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata=dict(meta))
    os.replace(temporary, path)


def load(path: Path, weights: WeightSets, optimizers: Optimizers) -> dict[str, str]:
    """Put a saved state back, with its named sets, and return its meta data; without optimisers, the weights alone."""
    owners = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for key in file.keys():  # noqa: SIM118 - not a mapping
            kind, _, name = key.partition("/")
            parameter = weights.parameters[name]
            tensor = _like(parameter, file.get_tensor(key))
            kind, _, state = kind.partition(".")
            if kind == CURRENT:
                parameter.copy_(tensor)
            elif kind != "optimizer":
                weights.sets.setdefault(kind, {})[name] = tensor
            elif optimizers:
                owners[id(parameter)].state[parameter][state] = tensor
        for values in weights.sets.values():  # in the parameters' own order, which fused updates rely on
            ordered = {name: values[name] for name in weights.parameters}
            values.clear()
            values.update(ordered)
        return dict(file.metadata())


def meta(path: Path) -> dict[str, str]:
    """The meta data of a saved state, which :func:`load` returns too."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """On the device of ``parameter``, and sharded like it; a single number (an optimiser's count) stays as it is."""
    if not tensor.ndim:
        return tensor
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return tensor.to(parameter.device)
