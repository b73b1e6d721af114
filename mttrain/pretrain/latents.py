"""Stage 2: the train split as latents. Encoding costs more than a step of the transformer, so it is done once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, FluxKontextPipeline
from safetensors.torch import load_file, save_file

from mteval.benchmarks.shapes.generate import make_session
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.world import Level
from mttrain.pretrain.data import to_tensor

SHARD = 500  # sessions a file


class Latents(NamedTuple):
    """The train split as the transformer sees it.

    Attributes:
        states: [sessions, turns + 1, tokens, channels], normalised and packed.
        instructions: [sessions][turns].
        edits: (session, turn) of every single edit, as often as its type weighs: what batches are drawn from.
    """

    states: torch.Tensor
    instructions: list[list[str]]
    edits: list[tuple[int, int]]

    def batch(self, seed: int, step: int, count: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Single edits from clean inputs: source and target [count, tokens, channels], and their instructions."""
        picks = Random(f"flow/{seed}/{step}").sample(self.edits, count)
        session, turn = (torch.tensor(column) for column in zip(*picks, strict=True))
        words = [self.instructions[i][t] for i, t in picks]
        return self.states[session, turn].float(), self.states[session, turn + 1].float(), words


@torch.no_grad()
def encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """[n, 3, h, w] in -1..1 -> [n, tokens, channels], normalised by the codec's own shift and scale, packed 2 x 2."""
    latents = vae.encode(images.to(memory_format=torch.channels_last)).latent_dist.mode()
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    n, channels, height, width = latents.shape
    packed: torch.Tensor = FluxKontextPipeline._pack_latents(latents.contiguous(), n, channels, height, width)
    return packed


def make_latents(vae: AutoencoderKL, level: Level, seed: int, sessions: int, turns: int, folder: Path) -> Iterator[int]:
    """Write the shards that are not there yet; yields the number of sessions done."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = renderer(level).pixels
    for first in range(0, sessions, SHARD):
        path = folder / f"{first:06d}.safetensors"
        if not path.exists():
            states = []
            for index in range(first, min(first + SHARD, sessions)):
                session = make_session(level, "train", seed, index, turns)
                scenes = [session.start, *(turn.target for turn in session.turns)]
                states.append(encode(vae, to_tensor([draw(scene) for scene in scenes])))
            temporary = path.with_suffix(".tmp")
            save_file({"states": torch.stack(states).to(torch.float16)}, temporary)
            temporary.rename(path)
        yield min(first + SHARD, sessions)


def load_latents(
    level: Level, seed: int, sessions: int, turns: int, folder: Path, emphasis: Mapping[str, int]
) -> Latents:
    """All shards, with the instructions made anew from the seed.

    Args:
        emphasis: how often an edit of a task type is drawn where it is not once.
    """
    shards = [load_file(folder / f"{first:06d}.safetensors")["states"] for first in range(0, sessions, SHARD)]
    made = [make_session(level, "train", seed, index, turns).turns for index in range(sessions)]
    edits = [
        (i, t)
        for i, several in enumerate(made)
        for t, turn in enumerate(several)
        for _ in range(emphasis.get(turn.task_type, 1))
    ]
    return Latents(torch.cat(shards), [[turn.instruction for turn in several] for several in made], edits)
