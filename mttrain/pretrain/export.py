"""Write the trained parts as a standard diffusers folder that ``flux-kontext`` loads like any other checkpoint."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxKontextPipeline
from torch import nn

from mttrain.pretrain import models
from mttrain.pretrain.flow import GUIDANCE, Flow, FlowSettings
from mttrain.weights import AVERAGE, WeightSets

STEPS = 6  # Euler steps a sample takes


def export(
    folder: Path, vae: AutoencoderKL, flow: Flow, weights: WeightSets, settings: FlowSettings, size: int
) -> None:
    """Save the averaged weights in bfloat16 (half the size; they are used in float32) with their sampling defaults.

    Args:
        size: side of the images, in pixels.
    """
    with weights.using(AVERAGE):
        averaged = copy.deepcopy(flow).eval()
    pipeline = FluxKontextPipeline(
        scheduler=models.scheduler(),
        vae=vae,
        text_encoder=averaged.text_encoder,
        tokenizer=averaged.clip_tokenizer,
        text_encoder_2=averaged.text_encoder_2,
        tokenizer_2=averaged.t5_tokenizer,
        transformer=averaged.transformer,
    )
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    # nn.Module's own ``to``: the override of diffusers warns of a list of exceptions that is empty here.
    halved = {name: nn.Module.to(copy.deepcopy(part), torch.bfloat16) for name, part in modules.items()}
    pipeline.register_modules(**halved)
    pipeline.save_pretrained(folder, safe_serialization=True)
    defaults = {
        "steps": STEPS,
        "guidance": GUIDANCE,
        "size": [size, size],
        "text_lengths": list(settings.text_lengths),
        "batch_size": 50,
    }
    (folder / "mteval.json").write_text(json.dumps(defaults, indent=2) + "\n")
