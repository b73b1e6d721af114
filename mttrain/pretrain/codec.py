"""Stage 1: the autoencoder. What it blurs cannot be kept by any editor that lives in its latent space."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from mteval.benchmarks.shapes.world import Level
from mttrain import checkpoint
from mttrain.pretrain import data, models
from mttrain.pretrain.muon import Muon
from mttrain.pretrain.schedule import schedule
from mttrain.weights import AVERAGE, WeightSets, warmed


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """How the codec is trained.

    ``noise`` is added to the latents before they are decoded, in units of their own standard deviation: what the
    transformer makes is never exact, and a decoder that has only seen exact latents would show it. The means alone are
    trained (an editor encodes with them); the posterior's variance is left as it is initialised. ``lr`` is Muon's, for
    the kernels; a tenth of it goes to AdamW, for the rest.
    """

    channels: tuple[int, ...] = (8, 16, 32, 64, 96)
    steps: int = 6000
    batch: int = 8
    lr: float = 0.02
    warmup: int = 50
    noise: float = 0.05
    ema: float = 0.998


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over images of 10 log10(1 / mse), in dB, for images in -1..1 (clamped)."""
    mse = ((a.clamp(-1, 1) - b.clamp(-1, 1)) / 2).square().flatten(1).mean(1)
    return float((-10 * mse.clamp_min(1e-10).log10()).mean())


@torch.no_grad()
def round_trip(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    decoded: torch.Tensor = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return decoded


@torch.no_grad()
def finished_codec(level: Level, settings: CodecSettings, seed: int, path: Path) -> AutoencoderKL:
    """The averaged codec of a checkpoint, with the shift and scale that give its latents unit variance."""
    vae = models.codec(settings.channels).to(memory_format=torch.channels_last)
    weights = WeightSets(dict(vae.eval().named_parameters()))
    checkpoint.load(path, weights, [])
    weights.take(AVERAGE)
    # Rounded as it will be stored, so that the transformer is trained on what it will meet.
    for parameter in vae.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))
    latents = vae.encode(data.pictures(level, seed, -1, 256).to(memory_format=torch.channels_last)).latent_dist.mode()
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std()))
    return vae


def train_codec(
    level: Level, settings: CodecSettings, seed: int, path: Path, save_every: int = 200
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train and write ``path`` (a checkpoint) as it goes; yields (step, figures) after every step.

    Args:
        path: resumed from when it is there.
    """
    torch.manual_seed(seed)
    vae = models.codec(settings.channels).to(memory_format=torch.channels_last).train()
    kernels = [p for p in vae.parameters() if p.ndim == 4]
    others = [p for p in vae.parameters() if p.ndim != 4]
    muon = Muon(kernels, settings.lr)
    adam = torch.optim.AdamW(others, settings.lr / 10, betas=(0.9, 0.99), weight_decay=0.0)
    weights = WeightSets(dict(vae.named_parameters()))
    weights.keep(AVERAGE)
    start = int(checkpoint.load(path, weights, [muon, adam])["step"]) if path.exists() else 0

    def loss_of(images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latents = vae.encode(images).latent_dist.mode()
        error = vae.decode(latents + settings.noise * latents.std().detach() * noise).sample - images
        rms = error.square().flatten(1).mean(1).sqrt().mean()
        return rms + error.abs().mean() + 1e-4 * latents.square().mean(), rms

    scale = 2 ** (len(settings.channels) - 1)
    for step in range(start, settings.steps):
        images = data.pictures(level, seed, step, settings.batch).to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        side = level.size // scale
        noise = torch.randn(settings.batch, models.LATENT_CHANNELS, side, side, generator=generator)
        factor = schedule(step, settings.steps, settings.warmup)
        muon.param_groups[0]["lr"], adam.param_groups[0]["lr"] = settings.lr * factor, settings.lr / 10 * factor
        loss, rms = loss_of(images, noise)
        vae.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        muon.step()
        adam.step()
        weights.blend(AVERAGE, 1 - warmed(settings.ema, step))
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            checkpoint.save(path, weights, [muon, adam], {"step": str(step + 1)})
        yield step + 1, {"loss": float(loss.detach()), "psnr": -20 * math.log10(float(rms.detach()) / 2)}
