"""An editor whose velocity is whatever a test says, and ways to look at what an objective asks of an editor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mteval import registry
from mteval.editors.base import EditorInfo
from mteval.editors.flow import Condition, FlowEditor, Outline, Text
from mteval.editors.flux_kontext import FluxKontext
from mttrain.objectives.base import Objective
from mttrain.policy import Policy
from mttrain.recipe import Adapter, Rollout
from mttrain.rollouts import Edits, Group, Place, Rollouts
from mttrain.weights import WeightSets

Doubles = NDArray[np.float64]

TOKENS, CHANNELS = 3, 4
ELEMENTS = TOKENS * CHANNELS
SIZE = (16, 16)


def shifted(steps: int, shift: float = 3.0) -> list[float]:
    """The schedule k u / (1 + (k - 1) u) over u = 1, ..., 1 / steps, 0."""
    return [shift * u / (1 + (shift - 1) * u) for u in (1 - k / steps for k in range(steps))] + [0.0]


class Given(nn.Module):
    """v is a parameter, so its gradient is dL/dv; the image that is edited is added to it, the point is ignored."""

    dtype = torch.float32

    def __init__(self, v: torch.Tensor) -> None:
        super().__init__()
        self.v = nn.Parameter(v.clone())

    def forward(self, latents: torch.Tensor, sigma: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.v[: len(latents)] + image


class FakeEditor(FlowEditor):
    """Runs ``network(latents, sigma, condition.image)``; the rest of an editor is as small as it can be."""

    def __init__(self, network: nn.Module, steps: int = 10, tokens: int = TOKENS, channels: int = CHANNELS) -> None:
        super().__init__()
        self._network, self.steps, self.shape = network, steps, (tokens, channels)
        self.info, self.weights_name = EditorInfo("fake", "fake"), "fake"

    @classmethod
    def lora_targets(cls, network: nn.Module) -> tuple[str, ...]:
        return ()

    @classmethod
    def outline(cls, **arguments: Any) -> Outline:
        return Outline(nn.Identity(), tokens=0, other_parameters=0, blocks=0, width=0, steps=1)

    @property
    def license(self) -> str:
        return "none"

    @property
    def pipe(self) -> Any:
        return None

    @property
    def network(self) -> nn.Module:
        return self._network

    @network.setter
    def network(self, network: nn.Module) -> None:
        self._network = network

    @property
    def text_encoders(self) -> list[nn.Module]:
        return []

    def text_length(self, instruction: str) -> int | None:
        return 1

    def encode(self, instructions: Sequence[str], length: int, images: Sequence[Sequence[Image.Image]]) -> list[Text]:
        return [{"tokens": torch.zeros(length, 1)} for _ in instructions]

    def condition(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.zeros(len(images), *self.shape)

    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        v: torch.Tensor = self.network(latents, sigma, condition.image)
        return v

    def decode(self, latents: torch.Tensor, size: tuple[int, int]) -> list[Image.Image]:
        return [Image.new("RGB", size) for _ in latents]

    def noise(self, seeds: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
        return torch.stack([torch.randn(self.shape, generator=torch.Generator().manual_seed(s)) for s in seeds])

    def sigmas(self, size: tuple[int, int]) -> list[float]:
        return shifted(self.steps)

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size


def random(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers, the same for a seed."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def policy_of(v: torch.Tensor, steps: int = 10, **sets: torch.Tensor) -> Policy:
    """A policy whose current velocity is ``v`` [n, tokens, channels], and that of its other ``sets`` what they say."""
    network = Given(v)
    policy = Policy(FakeEditor(network, steps), None)
    policy.weights = WeightSets(policy.trainable())
    for name, values in sets.items():
        set_velocity(policy, values)
        policy.weights.keep(name)
    set_velocity(policy, v)
    return policy


def set_velocity(policy: Policy, v: torch.Tensor) -> None:
    """From now on the policy's velocity is ``v``."""
    with torch.no_grad():
        policy.weights.parameters["v"].copy_(v)


def gradient(policy: Policy) -> torch.Tensor:
    """dL/dv, [n, tokens, channels]."""
    found = policy.weights.parameters["v"].grad
    assert found is not None
    return found


def edits_of(latents: torch.Tensor, **more: Any) -> Edits:
    """Edits that made ``latents``; the members of one group, each with a seed of its own."""
    n = len(latents)
    condition = Condition({"tokens": torch.zeros(n, 1, 1)}, torch.zeros(latents.shape), SIZE)
    return Edits(**{"condition": condition, "latents": latents, "seeds": tuple(range(n)), "shared": (7,) * n, **more})


class Call(NamedTuple):
    """One velocity evaluation."""

    latents: torch.Tensor
    sigma: torch.Tensor
    condition: Condition
    velocity: torch.Tensor

    @property
    def level(self) -> Doubles:
        """sigma as [n, 1, 1]."""
        return double(self.sigma)[:, None, None]


@contextmanager
def watched(editor: FlowEditor) -> Iterator[list[Call]]:
    """Every velocity evaluation within it, in order."""
    calls: list[Call] = []
    inner = editor.velocity

    def velocity(latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        v = inner(latents, sigma, condition)
        calls.append(Call(latents.detach().clone(), sigma.clone(), condition, v.detach().clone()))
        return v

    with patch.object(editor, "velocity", velocity):
        yield calls


def double(values: torch.Tensor) -> Doubles:
    """A tensor as float64 of numpy, cut off from its graph."""
    return np.asarray(values.detach().double().cpu().numpy(), dtype=np.float64)


def mean(values: Doubles) -> Doubles:
    """Over all but the first axis: [n]."""
    return np.asarray(values.reshape(len(values), -1).mean(1))


def flow_sde(level: float, sigmas: Sequence[float], step: int, x: Doubles, v: Doubles) -> tuple[Doubles, float]:
    """Mean and standard deviation of the next latents (Flow-GRPO's equations), the noise's sqrt(-dt) included."""
    now, dt = sigmas[step], sigmas[step + 1] - sigmas[step]
    squared = level**2 * now / (1 - (sigmas[1] if now == 1 else now))
    drift = v + squared / (2 * now) * (x + (1 - now) * v)
    return x + drift * dt, math.sqrt(squared * -dt)


def cps(level: float, sigmas: Sequence[float], step: int, x: Doubles, v: Doubles) -> tuple[Doubles, float]:
    """The same for Flow-CPS: the noise is split into a part that is kept and a part that is drawn anew."""
    now, then = sigmas[step], sigmas[step + 1]
    anew, kept = math.sin(level * math.pi / 2), math.cos(level * math.pi / 2)
    return (1 - then) * (x - now * v) + then * kept * (x + (1 - now) * v), then * anew


KERNELS = {"flow-sde": flow_sde, "cps": cps}


def log_density(x: Doubles, mu: Doubles, std: float) -> Doubles:
    """log N(x; mu, std^2), mean over the elements: [n]."""
    return mean(-((x - mu) ** 2) / (2 * std**2) - math.log(math.sqrt(2 * math.pi) * std))


def rolled_out(policy: Policy, objective: Objective, members: int = 2, turns: int = 2) -> dict[Place, Edits]:
    """A real rollout of ShapesEdit's first session of that length; nobody judges it."""
    benchmark = registry.create("benchmark", "shapes", {"split": "train"})
    [session] = benchmark.sessions(turns, 1)
    settings = Rollout(turns=turns, groups=1, group_size=members, batch_size=members)
    rollouts = Rollouts(policy, objective, settings, 1, lambda places, views: None)
    return rollouts.play([Group(0, session, benchmark)], 0)


def real_policy(folder: Path, objective: Objective, adapter: Adapter | None = None, precision: str = "no") -> Policy:
    """The network of :func:`tests.tiny_pipelines.save_kontext`, wrapped as the loop does it, with the sets kept."""
    AcceleratorState._reset_state(reset_partial_state=True)
    low = precision == "bf16" and adapter is not None
    editor = FluxKontext(str(folder), steps=6, device="cpu", dtype="bfloat16" if low else "float32")
    policy = Policy(editor, adapter)
    accelerator = Accelerator(mixed_precision=precision, cpu=True)
    policy.prepare(accelerator, torch.optim.AdamW(policy.trainable().values()))
    for name in objective.sets:
        policy.weights.keep(name)
    return policy


def shake(policy: Policy, size: float = 0.01) -> None:
    """Move every trained number a little."""
    with torch.no_grad():
        for k, parameter in enumerate(policy.weights.parameters.values()):
            parameter.add_(random(*parameter.shape, seed=k, scale=size))
