"""Stage 3: text encoders and transformer, trained together by flow matching on single edits from clean inputs.

x_s = (1 - s) x_0 + s e with noise e; the network predicts v = e - x_0 from (x_s, s, instruction, the image to edit).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import FluxKontextPipeline, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
from torch import nn
from transformers import CLIPTextModel, T5EncoderModel

from mttrain import checkpoint
from mttrain.pretrain import models
from mttrain.pretrain.latents import Latents
from mttrain.pretrain.schedule import schedule
from mttrain.weights import AVERAGE, WeightSets, warmed


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """How the transformer is trained.

    ``text_lengths`` are the paddings of a text that the model meets: the shortest in all steps but one in
    ``long_every``. ``emphasis`` says how often an edit of a task type is drawn where it is not once.
    """

    layers: int = 1
    single_layers: int = 2
    heads: int = 2
    steps: int = 15200
    batch: int = 48
    lr: float = 2e-3
    warmup: int = 200
    ema: float = 0.999
    text_lengths: tuple[int, ...] = (12, 32)
    long_every: int = 10
    emphasis: Mapping[str, int] = field(default_factory=lambda: {"count_change": 2})  # the hardest type by far


GUIDANCE = 1.0  # of the guidance embedding, in training and sampling alike


class Flow(nn.Module):
    """Everything that is trained by the flow loss, with its tokenizers."""

    def __init__(self, settings: FlowSettings) -> None:
        super().__init__()
        self.t5_tokenizer = models.t5_tokenizer(settings.text_lengths[-1])
        self.clip_tokenizer = models.clip_tokenizer()
        self.text_encoder: CLIPTextModel = models.clip_encoder(self.clip_tokenizer)
        self.text_encoder_2: T5EncoderModel = models.t5_encoder(self.t5_tokenizer)
        self.transformer: FluxTransformer2DModel = models.transformer(
            settings.layers, settings.single_layers, settings.heads
        )

    def tokens(self, instructions: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """T5 ids [n, length], padded as the pipeline pads them, and CLIP ids.

        CLIP is causal and pooled at the end token, so how far its ids are padded makes no difference: less is quicker.

        Raises:
            ValueError: an instruction does not fit ``length``.
        """
        t5 = self.t5_tokenizer(instructions, padding="max_length", max_length=length, return_tensors="pt").input_ids
        if t5.shape[1] != length:
            raise ValueError(f"an instruction of this batch has {t5.shape[1]} tokens, more than {length}")
        clip_length = 32  # no single instruction has more
        clip = self.clip_tokenizer(instructions, padding="max_length", max_length=clip_length, return_tensors="pt")
        return t5, clip.input_ids

    def velocity(
        self,
        noisy: torch.Tensor,
        source: torch.Tensor,
        sigma: torch.Tensor,
        t5: torch.Tensor,
        clip: torch.Tensor,
        ids: Ids,
    ) -> torch.Tensor:
        """[n, tokens, channels]; ``sigma`` [n] in 0..1."""
        text = self.text_encoder_2(t5)[0]
        pooled = self.text_encoder(clip).pooler_output
        out: torch.Tensor = self.transformer(
            hidden_states=torch.cat([noisy, source], 1),
            timestep=sigma,
            guidance=torch.full_like(sigma, GUIDANCE),
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=ids.text,
            img_ids=ids.image,
            return_dict=False,
        )[0]
        return out[:, : noisy.shape[1]]


@dataclass(frozen=True, slots=True)
class Ids:
    """Position ids: ``image`` [2 * tokens, 3], noise, then the image to edit with 1 in front; ``text`` [length, 3]."""

    image: torch.Tensor
    text: torch.Tensor


def position_ids(side: int, length: int) -> Ids:
    """For ``side`` x ``side`` tokens, as the pipeline makes them."""
    device, dtype = torch.device("cpu"), torch.float32
    noise = FluxKontextPipeline._prepare_latent_image_ids(1, side, side, device, dtype)
    source = noise.clone()
    source[..., 0] = 1
    return Ids(torch.cat([noise, source]), torch.zeros(length, 3))


def shift_sigmas(u: torch.Tensor, tokens: int) -> torch.Tensor:
    """Uniform u in 0..1 -> sigma, with the exponential shift that the pipeline samples with."""
    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    return math.exp(mu) / (math.exp(mu) + (1 / u - 1))


def train_flow(
    latents: Latents, settings: FlowSettings, seed: int, path: Path, save_every: int = 500
) -> Iterator[tuple[int, dict[str, float], Flow, WeightSets]]:
    """Train and write ``path`` (a checkpoint) as it goes; yields (step, figures, model, its weights) each step.

    A run that is finished already yields its end once more, without figures.
    """
    torch.manual_seed(seed)
    flow = Flow(settings).train()
    optimizer = torch.optim.AdamW(flow.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    weights = WeightSets(dict(flow.named_parameters()))
    weights.keep(AVERAGE)
    start = int(checkpoint.load(path, weights, [optimizer])["step"]) if path.exists() else 0
    if start == settings.steps:
        yield start, {}, flow, weights
    tokens = latents.states.shape[2]
    ids = {length: position_ids(math.isqrt(tokens), length) for length in settings.text_lengths}
    # torch.compile writes C++ on a CPU: without a compiler the same steps take longer.
    velocity = torch.compile(flow.velocity) if shutil.which(os.environ.get("CXX", "g++")) else flow.velocity
    for step in range(start, settings.steps):
        length = settings.text_lengths[-1 if (step + 1) % settings.long_every == 0 else 0]
        source, target, instructions = latents.batch(seed, step, settings.batch)
        t5, clip = flow.tokens(instructions, length)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        noise = torch.randn(target.shape, generator=generator)
        # One sigma from each of n equal strata: the same distribution, less noise in the loss.
        u = (
            torch.randperm(settings.batch, generator=generator) + torch.rand(settings.batch, generator=generator)
        ) / settings.batch
        sigma = shift_sigmas(u.clamp(1e-4, 1 - 1e-4), tokens)
        noisy = torch.lerp(target, noise, sigma[:, None, None])
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * schedule(step, settings.steps, settings.warmup)
        loss = (velocity(noisy, source, sigma, t5, clip, ids[length]) - (noise - target)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        weights.blend(AVERAGE, 1 - warmed(settings.ema, step))
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            checkpoint.save(path, weights, [optimizer], {"step": str(step + 1)})
        yield step + 1, {"loss": float(loss.detach())}, flow, weights
