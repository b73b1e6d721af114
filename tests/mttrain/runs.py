"""Small real runs for tests: random weights of FLUX.1 Kontext's own classes on ShapesEdit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from mttrain import recipe
from mttrain.recipe import Recipe
from mttrain.trainer import Trainer

SMALL: dict[str, Any] = {
    "rewards": ["shapes-cc"],
    "rollout": {"turns": 2, "groups": 2, "group_size": 3, "batch_size": 6},
    "objective": {"name": "nft"},
    "optimizer": {"lr": 1e-3},
    "sessions": {"pool": 8},
    "eval": {"every": 0},
    "trackers": [],
    "steps": 3,
    "save_every": 1,
}


def small(pretrained: Path, output: Path, **changes: Any) -> Recipe:
    """A run of seconds; ``changes`` are merged into its parts."""
    editor = {"name": "flux-kontext", "args": {"pretrained": str(pretrained), "steps": 3, "device": "cpu"}}
    settings = {**SMALL, "editor": editor, "output": output}
    for key, value in changes.items():
        merged = isinstance(value, Mapping) and isinstance(settings.get(key), Mapping) and key != "objective"
        settings[key] = {**settings[key], **value} if merged else value
    return recipe.build(settings)


def train(wanted: Recipe) -> Trainer:
    """Run to the end, quietly."""
    AcceleratorState._reset_state(reset_partial_state=True)
    trainer = Trainer(wanted, wanted.output)
    trainer.run(lambda stage, done, total, figures: None)
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything that is trained or kept beside it."""
    sets = trainer.policy.weights
    current = {name: parameter.detach().clone() for name, parameter in sets.parameters.items()}
    kept = {f"{kind}/{name}": value for kind, values in sets.sets.items() for name, value in values.items()}
    return {**current, **kept}


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
