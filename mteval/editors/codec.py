"""The codec control: encode, then decode, no edit. The drift that the autoencoder alone causes over the turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from mteval.editors import checkpoints
from mteval.editors.base import About, EditorInfo, EditRequest, EditResult
from mteval.editors.flow_pipeline import whole_tokens
from mteval.editors.loading import Loading, loads, pick_dtype
from mteval.editors.quiet import quiet


class Codec:
    """One round trip through a checkpoint's AutoencoderKL a turn.

    Args:
        pretrained: a local folder or a Hub id of a Kontext checkpoint; default: the packaged tiny-kontext.
    """

    about = About("encodes and decodes, edits nothing: the drift that the autoencoder alone causes", "control")

    def __init__(self, pretrained: str | None = None, device: str = "auto", dtype: str = "auto") -> None:
        self._loading = Loading(device, dtype)
        how_to_get = "leave pretrained away for the packaged weights, or give a local folder"
        folder = checkpoints.packaged("tiny-kontext")
        if pretrained is not None:
            folder = checkpoints.locate(pretrained, None, "FluxKontextPipeline", how_to_get)
        defaults = checkpoints.sampling_defaults(folder, checkpoints.SamplingDefaults(steps=1, guidance=1))
        self.info = EditorInfo("codec", checkpoints.fingerprint(folder / "vae"), batch_size=defaults.batch_size)
        self._folder = folder / "vae"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The autoencoder and the image processor of its token size, loaded at the first edit."""
        quiet()
        import torch
        from diffusers import AutoencoderKL
        from diffusers.image_processor import VaeImageProcessor

        device = self._loading.pick_device()
        with loads(f"the autoencoder from {self._folder}"):
            vae = AutoencoderKL.from_pretrained(
                self._folder,
                dtype=pick_dtype(self._loading.dtype, device),
                low_cpu_mem_usage=checkpoints.without_second_copy(),
            ).to(device)
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        return vae.to(memory_format=torch.channels_last).eval(), VaeImageProcessor(vae_scale_factor=2 * scale)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def accepts(self, instruction: str) -> bool:
        return True

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """Images of one size go through together; sides are made multiples of the token size, then resized back.

        Raises:
            UsageError: an image is smaller than a token.
        """
        import torch
        from PIL import Image

        vae, processor = self._loaded
        results: dict[int, EditResult] = {}
        for size in dict.fromkeys(request.image.size for request in requests):
            members = [k for k, request in enumerate(requests) if request.image.size == size]
            started = time.perf_counter()
            width, height = whole_tokens(size, processor.config.vae_scale_factor)
            with torch.inference_mode():
                shown = processor.preprocess([requests[k].image for k in members], height, width)
                pixels = shown.to(vae.device, vae.dtype)
                decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
            images = processor.postprocess(decoded, output_type="pil")
            latency = (time.perf_counter() - started) / len(members)
            for k, image in zip(members, images, strict=True):
                whole = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
                results[k] = EditResult(whole, latency=latency)
        return [results[k] for k in range(len(requests))]
