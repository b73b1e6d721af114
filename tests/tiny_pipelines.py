"""Checkpoints for tests: the very classes of FLUX.1 Kontext with random weights, saved in the diffusers layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mteval.editors.base import EditRequest
from mttrain.pretrain import models
from mttrain.pretrain.export import export
from mttrain.pretrain.flow import Flow, FlowSettings
from mttrain.weights import AVERAGE, WeightSets

SIZE = 64  # four tokens


def save_kontext(folder: Path) -> Path:
    """A random FLUX.1 Kontext of 64 pixels a side with its ``mteval.json``."""
    torch.manual_seed(0)
    settings = FlowSettings(single_layers=1, heads=2)
    flow = Flow(settings)
    vae = models.codec((4, 4, 4, 4, 8))
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.7)
    weights = WeightSets(dict(flow.named_parameters()))
    weights.keep(AVERAGE)
    export(folder, vae, flow, weights, settings, SIZE)
    return folder


def picture(seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """A smooth random image, (width, height) = ``size``."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def request(seed: int, instruction: str = "Add a red circle.", image: Image.Image | None = None) -> EditRequest:
    return EditRequest(f"s{seed}", 1, image or picture(seed), instruction, seed=seed)


def difference(a: Image.Image | None, b: Image.Image | None) -> int:
    """The largest difference of two images in 0..255."""
    assert a is not None and b is not None and a.size == b.size
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())
