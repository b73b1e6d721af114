"""FLUX.1 Kontext, and tiny-kontext: the same classes at a ten-thousandth of the size."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteval.editors import checkpoints
from mteval.editors.base import EditorInfo
from mteval.editors.checkpoints import SamplingDefaults
from mteval.editors.flow import (
    Condition,
    FlowEditor,
    Outline,
    TextCondition,
    checked_device,
    checked_dtype,
    pick_device,
    pick_dtype,
)
from mteval.editors.quiet import quiet
from mteval.errors import UsageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

# The example of the model's page on the Hub (black-forest-labs/FLUX.1-Kontext-dev) and the defaults of
# FluxKontextPipeline.__call__.
PUBLISHED = SamplingDefaults(steps=28, guidance=2.5)
_HOW_TO_GET = (
    "accept the licence on huggingface.co/black-forest-labs/FLUX.1-Kontext-dev, then run `hf auth login` "
    "and `hf download black-forest-labs/FLUX.1-Kontext-dev` (about 34 GB for the diffusers folders), or give a local "
    "folder with --model-args pretrained=FOLDER"
)


# T5-XXL's encoder, CLIP-L's text encoder and the codec of FLUX.1, in parameters.
_OTHERS = 4_762_310_656 + 123_060_480 + 83_819_683


class FluxKontext(FlowEditor):
    """Any FLUX.1 Kontext checkpoint in the diffusers layout.

    Args:
        pretrained: a local folder, or an id on the Hugging Face Hub.
        lora: a folder or file of LoRA weights in diffusers' format.
        steps, guidance, size: override what the checkpoint's ``mteval.json``, or else its publisher, says. ``size`` is
            the (width, height) in pixels that it works at, multiples of 16.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``. dtype: ``auto``, ``bfloat16``, ``float16`` or ``float32``.
        revision: of the Hub repository.

    Raises:
        UsageError: the weights are missing, or of another kind, or an argument is wrong. All this is found when the
            editor is made, before torch is imported; the model itself is loaded at the first edit.
    """

    id = "flux-kontext"
    license = "FLUX.1 [dev] Non-Commercial License"
    pretrained = "black-forest-labs/FLUX.1-Kontext-dev"
    # Attention and feed-forward of both kinds of blocks: the layers that flow_grpo adapts for Kontext.
    lora_targets = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_add_out"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"),
    )

    def __init__(
        self,
        pretrained: str = pretrained,
        lora: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        size: Sequence[int] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self._device, self._dtype = checked_device(device), checked_dtype(dtype)
        self._folder = folder = checkpoints.locate(pretrained, revision, "FluxKontextPipeline", _HOW_TO_GET)
        sampling = _sampling(folder, steps, guidance, size)
        if lora is not None and not Path(lora).exists():
            raise UsageError(f"there is no LoRA at {lora}")
        self.steps, self.guidance = sampling.steps, sampling.guidance
        self.weights_name = pretrained
        self._lora = lora
        self._network: nn.Module | None = None
        self._size = sampling.size
        self._text_lengths = sampling.text_lengths
        weights = [folder] if lora is None else [folder, Path(lora)]
        self.info = EditorInfo(self.id, checkpoints.fingerprint(*weights), batch_size=sampling.batch_size)

    @classmethod
    def outline(
        cls, pretrained: str = "", size: Sequence[int] | None = None, steps: int | None = None, **arguments: Any
    ) -> Outline:
        """A local folder's own size; that of FLUX.1-Kontext-dev where there is none."""
        import torch
        from diffusers import FluxTransformer2DModel

        folder = Path(pretrained or cls.pretrained)
        local = folder.is_dir()
        sampling = _sampling(folder, steps, None, size)
        with torch.device("meta"):
            if local:
                config = FluxTransformer2DModel.load_config(folder / "transformer")
                network = FluxTransformer2DModel.from_config(config)
            else:  # the class's own defaults are FLUX.1's
                network = FluxTransformer2DModel(guidance_embeds=True)
        width, height = sampling.size or (1024, 1024)
        stride = 2 * 2 ** (len(_vae_blocks(folder)) - 1 if local else 3)
        tokens = 2 * (width // stride) * (height // stride) + sampling.text_lengths[0]
        return Outline(
            network,
            tokens,
            other_parameters=_others(folder) if local else _OTHERS,
            blocks=network.config.num_layers + network.config.num_single_layers,
            width=network.config.num_attention_heads * network.config.attention_head_dim,
            steps=sampling.steps,
        )

    @cached_property
    def device(self) -> str:
        return pick_device(self._device)

    @cached_property
    def pipe(self) -> Any:
        """The diffusers pipeline on its device."""
        quiet()
        import torch
        from diffusers import FluxKontextPipeline

        try:
            pipe: Any = FluxKontextPipeline.from_pretrained(
                self._folder,
                dtype=pick_dtype(self._dtype, self.device),
                low_cpu_mem_usage=checkpoints.without_second_copy(),
            )
        except OSError as error:
            raise UsageError(f"{self._folder} is not a whole checkpoint, download it again: {error}") from error
        if self._lora is not None:
            pipe.load_lora_weights(self._lora)
        pipe.set_progress_bar_config(disable=True)
        if self.device == "cpu":
            pipe.vae.to(memory_format=torch.channels_last)  # its convolutions take half the time
        return pipe.to(self.device)

    @property
    def network(self) -> nn.Module:
        network: nn.Module = self.pipe.transformer if self._network is None else self._network
        return network

    @network.setter
    def network(self, network: nn.Module) -> None:
        self._network = network

    @property
    def text_encoders(self) -> list[nn.Module]:
        return [self.pipe.text_encoder, self.pipe.text_encoder_2]

    @property
    def _stride(self) -> int:
        """Pixels a side of one token: the codec's scale, packed 2 x 2."""
        return int(self.pipe.vae_scale_factor) * 2

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The checkpoint's own size, or Kontext's training size of the nearest aspect ratio (as the pipeline picks)."""
        from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

        if self._size is not None:
            width, height = self._size
        else:
            ratio = size[0] / size[1]
            _, width, height = min((abs(ratio - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
        return width // self._stride * self._stride, height // self._stride * self._stride

    def text_length(self, instruction: str) -> int | None:
        tokens = len(self.pipe.tokenizer_2(instruction).input_ids)
        return next((length for length in self._text_lengths if tokens <= length), None)

    def encode(self, instructions: Sequence[str], length: int) -> list[TextCondition]:
        tokens, pooled, _ = self.pipe.encode_prompt(
            prompt=list(instructions), prompt_2=None, device=self.device, max_sequence_length=length
        )
        return [TextCondition(*pair) for pair in zip(tokens, pooled, strict=True)]

    def condition(self, images: Sequence[Image]) -> torch.Tensor:
        vae = self.pipe.vae
        pixels = self.pipe.image_processor.preprocess(list(images)).to(self.device, vae.dtype)
        latents = vae.encode(pixels).latent_dist.mode()
        latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
        return self._pack(latents)

    def noise(self, seeds: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
        """Drawn on the CPU, so that a seed means the same noise on every device."""
        import torch

        width, height = (2 * side // self._stride for side in size)
        shape = (1, self.pipe.vae.config.latent_channels, height, width)
        dtype = self.pipe.transformer.dtype
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) for seed in seeds]
        return self._pack(torch.cat(drawn).to(self.device))

    def sigmas(self, size: tuple[int, int]) -> list[float]:
        import numpy as np
        from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

        scheduler = self.pipe.scheduler
        tokens = math.prod(side // self._stride for side in size)
        mu = calculate_shift(
            tokens,
            scheduler.config.get("base_image_seq_len", 256),
            scheduler.config.get("max_image_seq_len", 4096),
            scheduler.config.get("base_shift", 0.5),
            scheduler.config.get("max_shift", 1.15),
        )
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / self.steps, self.steps), mu=mu)
        return [float(sigma) for sigma in scheduler.sigmas]

    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        import torch

        dtype, count = latents.dtype, latents.shape[1]
        guided = self.pipe.transformer.config.guidance_embeds
        out: torch.Tensor = self.network(
            hidden_states=torch.cat([latents, condition.image.to(dtype)], dim=1),
            timestep=sigma.to(dtype),
            guidance=torch.full_like(sigma, self.guidance) if guided else None,
            pooled_projections=condition.pooled,
            encoder_hidden_states=condition.text,
            txt_ids=torch.zeros(condition.text.shape[1], 3, device=latents.device, dtype=dtype),
            img_ids=self._positions(condition.size, dtype),
            return_dict=False,
        )[0]
        return out[:, :count]

    def _positions(self, size: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """[2 * tokens, 3]: the noise first, then the image to edit, told apart by 1 in front."""
        import torch

        width, height = (side // self._stride for side in size)
        noise = self.pipe._prepare_latent_image_ids(1, height, width, self.device, dtype)
        image = noise.clone()
        image[..., 0] = 1
        return torch.cat([noise, image])

    def decode(self, latents: torch.Tensor, size: tuple[int, int]) -> list[Image]:
        vae = self.pipe.vae
        unpacked = self.pipe._unpack_latents(latents.to(vae.dtype), size[1], size[0], self.pipe.vae_scale_factor)
        pixels = vae.decode(unpacked / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        images: list[Image] = self.pipe.image_processor.postprocess(pixels, output_type="pil")
        return images

    def _pack(self, latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = self.pipe._pack_latents(latents.contiguous(), *latents.shape)
        return packed


def _sampling(folder: Path, steps: int | None, guidance: float | None, size: Sequence[int] | None) -> SamplingDefaults:
    """What the checkpoint says, or its publisher, with what the caller overrides.

    Raises:
        UsageError: a value that cannot be.
    """
    if steps is not None and steps < 1:
        raise UsageError(f"steps must be at least 1, not {steps}")
    if size is not None and (len(size) != 2 or any(side < 16 or side % 16 for side in size)):
        raise UsageError(f"size must be [width,height] in multiples of 16 pixels, not {list(size)}")
    found = checkpoints.sampling_defaults(folder, PUBLISHED)
    wanted = {"steps": steps, "guidance": guidance, "size": None if size is None else tuple(size)}
    return found.model_copy(update={name: value for name, value in wanted.items() if value is not None})


def _vae_blocks(folder: Path) -> list[int]:
    found: list[int] = json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]
    return found


def _others(folder: Path) -> int:
    """Parameters of text encoders and codec, from the headers of their files."""
    from safetensors import safe_open

    count = 0
    for part in ("text_encoder", "text_encoder_2", "vae"):
        for path in (folder / part).glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


class TinyKontext(FluxKontext):
    """FLUX.1 Kontext in small, trained on ShapesEdit by ``mttrain pretrain``; the weights ship with mteval.

    Args: as for :class:`FluxKontext`.
    """

    id = "tiny-kontext"
    license = "Apache-2.0"
    pretrained = str(checkpoints.packaged("tiny-kontext"))

    def __init__(
        self,
        lora: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        device: str = "cpu",
        dtype: str = "auto",
    ) -> None:
        super().__init__(self.pretrained, lora, steps, guidance, device=device, dtype=dtype)
        self.weights_name = self.id
