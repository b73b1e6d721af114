"""Training state on disk: tensors in safetensors, the rest as text in the same file's header. No pickle."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

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


def save(path: Path, weights: WeightSets, optimizers: Optimizers, meta: Mapping[str, str]) -> None:
    """Write everything a step needs to go on; the file is replaced in one move."""
    tensors = {name: tensor.contiguous() for name, tensor in _flat(weights, optimizers)}
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
            tensor = file.get_tensor(key)
            kind, _, state = kind.partition(".")
            if kind == CURRENT:
                parameter.copy_(tensor)
            elif kind != "optimizer":
                weights.sets.setdefault(kind, {})[name] = tensor.to(parameter.device)
            elif optimizers:
                owners[id(parameter)].state[parameter][state] = (
                    tensor if state == "step" else tensor.to(parameter.device)
                )
        for values in weights.sets.values():  # in the parameters' own order, which fused updates rely on
            ordered = {name: values[name] for name in weights.parameters}
            values.clear()
            values.update(ordered)
        return dict(file.metadata())
