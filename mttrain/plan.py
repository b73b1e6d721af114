"""``mttrain plan``: what a recipe will do and take, before anything is loaded.

Memory and time are estimates from shapes, with their assumptions printed; nothing of them is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from mteval import registry
from mteval.editors.flow import FlowEditor, Outline
from mteval.errors import UsageError
from mttrain import objectives
from mttrain.recipe import Adapter, Recipe

GIB = 2**30
TFLOPS = 350.0
"""Sustained bfloat16 arithmetic of one H100, in TFLOP/s: 35 % of its peak, which image transformers reach."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One iteration of a recipe, over all processes.

    Attributes:
        chains, edits: conversations, and turns of them.
        rollout, training: image forwards of the network; a backward pass counts as two.
        updates: optimiser steps.
    """

    chains: int
    edits: int
    rollout: int
    training: int
    updates: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device, by what they are for."""

    network: int
    others: int
    trained: int
    activations: int

    @property
    def total(self) -> int:
        return self.network + self.others + self.trained + self.activations


def arithmetic(recipe: Recipe, size: Outline) -> Arithmetic:
    rollout, objective = recipe.rollout, objectives.create(recipe.objective)
    chains = rollout.groups * rollout.group_size
    edits = chains * rollout.turns
    sampled = size.steps if objective.inputs == "own" else 0
    forwards = edits * size.evaluations
    training = round(forwards * objective.passes * (3 + objective.extra_forwards(recipe.optimizer.updates)))
    return Arithmetic(chains, edits, forwards * sampled, training, recipe.optimizer.updates)


def length(recipe: Recipe, done: Arithmetic) -> int:
    """Iterations until the steps or the budget are used up, whichever comes first; ``done`` is one iteration."""
    if recipe.budget is None:
        return recipe.steps
    return min(recipe.steps, math.ceil(recipe.budget / (done.rollout + done.training)))


def outline(recipe: Recipe) -> Outline:
    """The size of the recipe's editor.

    Raises:
        UsageError: it is no flow-matching editor.
    """
    cls = registry.check("editor", recipe.editor.name, recipe.editor.args)
    if not issubclass(cls, FlowEditor):
        raise UsageError(f"editor '{recipe.editor.name}' is no flow-matching editor that can be trained")
    found: Outline = cls.outline(**recipe.editor.args)
    return found


def trained_parameters(network: nn.Module, adapter: Adapter | None, default_targets: tuple[str, ...]) -> int:
    """How many numbers are trained: all, or two thin matrices for every adapted linear layer."""
    if adapter is None:
        return sum(parameter.numel() for parameter in network.parameters())
    targets = adapter.targets or default_targets
    return sum(
        adapter.rank * (module.in_features + module.out_features)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and any(name == end or name.endswith(f".{end}") for end in targets)
    )


def memory(recipe: Recipe, size: Outline, trained: int) -> Memory:
    """On one device, at the larger of rollout and training."""
    parameters = sum(parameter.numel() for parameter in size.network.parameters())
    width = 2 if recipe.precision == "bf16" else 4
    objective = objectives.create(recipe.objective)
    sets = len(objective.sets) + bool(recipe.ema)
    # Values, gradient, Adam's two moments, the named sets, and the spare copy while a set is in use; all in float32.
    own = trained * 4 * (4 + sets + bool(objective.sets))
    frozen = 0 if recipe.adapter is None else parameters * width
    return Memory(frozen, size.other_parameters * width, own, _activations(recipe, size, width))


def _activations(recipe: Recipe, size: Outline, width: int) -> int:
    """What a forward keeps for its backward pass.

    About 34 numbers per token and unit of width in every block (Korthikanti et al. 2022, without the attention matrix,
    which fused kernels do not store); with checkpointing one per block, and one block whole.
    """
    units = recipe.rollout.batch_size * size.tokens * size.width
    kept = size.blocks + 34 if recipe.gradient_checkpointing else 34 * size.blocks
    return units * kept * width


def seconds(recipe: Recipe, size: Outline, done: Arithmetic, devices: int) -> float:
    """Of one iteration at :data:`TFLOPS` a device; the network alone, without codec, text and scorers."""
    parameters = sum(parameter.numel() for parameter in size.network.parameters())
    # Checkpointing computes every training forward once more.
    again = done.training / 3 if recipe.gradient_checkpointing else 0
    return 2 * parameters * size.tokens * (done.rollout + done.training + again) / (TFLOPS * 1e12 * devices)


def rows(recipe: Recipe, name: str) -> list[tuple[str, str]]:
    """What the command prints, as (what, how much)."""
    size = outline(recipe)
    cls = registry.resolve("editor", recipe.editor.name)
    done = arithmetic(recipe, size)
    trained = trained_parameters(size.network, recipe.adapter, cls.lora_targets(size.network))
    parameters = sum(parameter.numel() for parameter in size.network.parameters())
    needs = memory(recipe, size, trained)
    rollout = recipe.rollout
    batches = math.ceil(done.chains / rollout.batch_size) * rollout.turns
    branch = rollout.shape == "branch"
    iterations = length(recipe, done)
    if branch:
        conversations = f"{rollout.groups}, each turn edited {rollout.scouts} to {rollout.group_size} times"
    else:
        conversations = f"{rollout.groups} sessions x {rollout.group_size} chains = {done.chains}"
    most = "at most " if branch else ""
    run = f"{iterations} iterations, {done.edits * iterations:,} edits"
    if recipe.budget:
        run = f"{recipe.budget:,.0f} image forwards: " + (f"at least {iterations} iterations" if branch else run)
    found = [
        ("conversations an iteration", conversations),
        ("edits an iteration", f"{most}{done.chains} x {rollout.turns} turns = {done.edits}, in {batches} batches"),
        ("sampler", f"{size.steps} steps, {size.tokens} tokens an edit"),
        (
            "network, image forwards",
            f"{most}{done.rollout:,} sampled + {done.training:,} trained (backward = 2)",
        ),
        ("optimiser", f"{done.updates} an iteration, {done.updates * iterations:,} in all"),
        ("the run", run),
        ("trained", f"{trained:,} of {parameters:,} parameters ({trained / parameters:.2%})"),
        ("memory, network", _gib(needs.network)),
        ("memory, codec and text encoders", _gib(needs.others)),
        ("memory, what is trained", _gib(needs.trained)),
        ("memory, activations", _gib(needs.activations)),
        ("memory a device, estimate", _gib(needs.total)),
    ]
    for devices in (1, 8, 32):
        if devices > 1 and rollout.groups % (devices * recipe.optimizer.updates):
            continue
        if recipe.precision == "bf16":
            one = seconds(recipe, size, done, devices)
            took = f"{one:,.0f} s an iteration, {one * iterations / 3600:,.1f} h in all at {TFLOPS:.0f} TFLOP/s a GPU"
            found.append((f"time on {devices} GPUs, estimate", took))
        launch = "mttrain run" if devices == 1 else _launch(devices)
        found.append((f"command for {devices}", f"{launch} {name}"))
    return found


def _launch(devices: int) -> str:
    machines = "" if devices <= 8 else f" --num_machines {devices // 8} --machine_rank RANK --main_process_ip HOST"
    return f"accelerate launch --num_processes {devices}{machines} -m mttrain run"


def _gib(count: float) -> str:
    return f"{count / GIB:,.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:,.1f} MiB"
