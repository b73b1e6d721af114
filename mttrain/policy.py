"""A policy: a FlowEditor in training. Nothing here knows which family of editors it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from mteval.editors.flow import Condition, FlowEditor, Step, euler
from mteval.errors import UsageError
from mteval.seeds import seed_of, seeded
from mttrain.recipe import Adapter
from mttrain.weights import WeightSets


class Policy:
    """The editor's network with what of it is trained.

    Args:
        adapter: trains a LoRA of this kind; None = all weights of the network.
        seed: of the random start of a LoRA.

    Attributes:
        editor: its ``network`` is the one in training; its text encoders leave the memory to it.
        module: the network without the wrappers of distribution.
        weights: the trainable parameters with their named sets.
        spent: image forwards through the network so far, a backward pass counted as two.
    """

    def __init__(self, editor: FlowEditor, adapter: Adapter | None, checkpointing: bool = False, seed: int = 0) -> None:
        self.editor = editor
        editor.frees_text_encoders = True
        network: Any = editor.network
        self.module = network
        self.adapter = adapter
        self.module.requires_grad_(False)
        if adapter is None:
            if self.module.dtype != torch.float32:
                raise UsageError(
                    "all weights are trained in float32: load the editor with dtype float32, or use a LoRA"
                )
            self.module.requires_grad_(True)
        else:
            self._add(adapter, seed)
        if checkpointing:
            self.module.enable_gradient_checkpointing()
        self.spent = 0.0
        self.accelerator: Accelerator | None = None

    def _add(self, adapter: Adapter, seed: int) -> None:
        from peft import LoraConfig

        targets = adapter.targets or self.editor.lora_targets(self.module)
        config = LoraConfig(
            r=adapter.rank, lora_alpha=adapter.alpha, target_modules=list(targets), init_lora_weights="gaussian"
        )
        with seeded(seed_of(seed, "adapter"), str(self.module.device)):
            self.module.add_adapter(config)
        for parameter in self.trainable().values():
            parameter.data = parameter.data.float()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of all that is trained."""
        return {name: parameter for name, parameter in self.module.named_parameters() if parameter.requires_grad}

    def prepare(self, accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> Any:
        """Wrap network and optimiser for the processes there are; returns accelerate's optimiser."""
        self.accelerator = accelerator
        network, prepared = accelerator.prepare(self.editor.network, optimizer)
        self.editor.network = network
        self.module = accelerator.unwrap_model(network)
        self.weights = WeightSets(self.trainable())
        return prepared

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The same number formats in rollout and training, or the importance ratio would not be 1."""
        if self.accelerator is None:
            yield
            return
        with self.accelerator.autocast():
            yield

    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        """v in float32, [n, tokens, channels]; with gradients where they are enabled."""
        self.spent += len(latents) * self.editor.evaluations * (3 if torch.is_grad_enabled() else 1)
        with self.precision():
            return self.editor.velocity(latents.to(self.module.dtype), sigma, condition).float()

    @torch.no_grad()
    def sample(self, noise: torch.Tensor, condition: Condition, step: Step = euler) -> torch.Tensor:
        """The editor's own loop from noise to data, both [n, tokens, channels]."""
        self.spent += len(noise) * self.editor.steps * self.editor.evaluations
        with self.precision():
            return self.editor.sample(noise, condition, step)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it the network runs without its wrapper, so that one process may use it while the others wait."""
        wrapped, self.editor.network = self.editor.network, self.module
        try:
            with self.editor.with_text_encoders():
                yield
        finally:
            self.editor.network = wrapped

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Within it the network is what the LoRA started from."""
        self.module.disable_adapters()
        try:
            yield
        finally:
            self.module.enable_adapters()

    @property
    def elements(self) -> int:
        """How many numbers are trained."""
        return sum(math.prod(parameter.shape) for parameter in self.trainable().values())
