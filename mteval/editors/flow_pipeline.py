"""FlowPipeline: what the flow-matching editors that are diffusers checkpoints share, from arguments to sizes.

A family says which classes it is made of and how its tensors are laid out.
"""

from __future__ import annotations

import json
import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mteval.editors import checkpoints
from mteval.editors.base import About, EditorInfo
from mteval.editors.checkpoints import SamplingDefaults
from mteval.editors.flow import FlowEditor, Outline
from mteval.editors.loading import Loading
from mteval.errors import UsageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

_TOKEN = 16
"""Sides of working sizes are multiples of this many pixels."""


class FlowPipeline(FlowEditor):
    """A family of flow-matching checkpoints in the diffusers layout.

    Args:
        pretrained: a local folder, or an id on the Hugging Face Hub; None = the family's own.
        lora: a folder or file of LoRA weights in diffusers' format.
        steps, guidance: override what the checkpoint's ``mteval.json``, or else its publisher, says. ``guidance`` is
            the family's own kind: embedded, or classifier-free, where 1 means none.
        resolution: ``keep`` edits at the model's own size and gives back the size that came in; ``keep:WxH`` edits at
            W x H pixels instead. ``model`` and ``fixed:WxH`` leave the result at the size it was made, so that later
            turns are not resized again. W and H are multiples of 16.
        device, dtype, offload, compile, quantize: see :class:`mteval.editors.loading.Loading`.
        revision: of the Hub repository.

    Raises:
        UsageError: the weights are missing, or of another kind, or an argument is wrong. All this is found when the
            editor is made, before torch is imported; the model itself is loaded at the first edit.

    Attributes:
        id: registry name. pipeline, transformer: the diffusers classes. encoders: the pipeline's text encoders.
        how_to_get: one sentence for a person who lacks the weights.
        about: for a person; its ``images`` are how many the model can be shown.
    """

    id: ClassVar[str]
    pretrained: ClassVar[str]
    pipeline: ClassVar[str]
    transformer: ClassVar[str]
    encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    how_to_get: ClassVar[str]
    about: ClassVar[About]

    def __init__(
        self,
        pretrained: str | None = None,
        lora: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        resolution: str = "keep",
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        offload: str = "none",
        compile: bool = False,
        quantize: str | None = None,
    ) -> None:
        super().__init__()
        self.about.check_needs(self.id)
        self._loading = Loading(device, dtype, lora, offload, compile, quantize)
        self.weights_name = pretrained or self.pretrained
        self._folder = checkpoints.locate(self.weights_name, revision, self.pipeline, self.how_to_get)
        sampling = self._sampling(self._folder, steps, guidance, resolution)
        self.steps, self.guidance, self._size = sampling.steps, sampling.guidance, sampling.size
        self.evaluations = self.evaluations_a_step(self._folder, self.guidance)
        self._text_lengths = sampling.text_lengths
        self.returns_input_size = resolution.startswith("keep")
        self.frees_text_encoders = offload == "text"
        self._network: nn.Module | None = None
        weights = [self._folder] if lora is None else [self._folder, Path(lora)]
        revision = checkpoints.fingerprint(*weights)
        settings: dict[str, Any] = {"steps": self.steps, "guidance": self.guidance, "resolution": resolution}
        settings |= {"size": self._size, "text_lengths": self._text_lengths}
        self.info = EditorInfo(
            self.id, revision, batch_size=sampling.batch_size, max_images=self.about.images, settings=settings
        )

    @classmethod
    @abstractmethod
    def published(cls, folder: Path) -> SamplingDefaults:
        """How the publisher samples the checkpoint in ``folder`` (which may not be there)."""

    @classmethod
    @abstractmethod
    def published_size(cls, pretrained: str) -> tuple[dict[str, Any], int]:
        """Of a checkpoint on the Hub: what makes the transformer class its network, beside the defaults of the class,
        and the parameters of its text encoders and codec."""

    @classmethod
    def evaluations_a_step(cls, folder: Path, guidance: float) -> int:
        """Forwards of the network: 2 where this guidance is classifier-free."""
        return 1

    @classmethod
    def _sampling(cls, folder: Path, steps: int | None, guidance: float | None, resolution: str) -> SamplingDefaults:
        """What the checkpoint says, or its publisher, with what the caller overrides.

        Raises:
            UsageError: a value that cannot be.
        """
        if steps is not None and steps < 1:
            raise UsageError(f"steps must be at least 1, not {steps}")
        size = asked_size(resolution)
        found = checkpoints.sampling_defaults(folder, cls.published(folder))
        wanted = {"steps": steps, "guidance": guidance, "size": size}
        return found.model_copy(update={name: value for name, value in wanted.items() if value is not None})

    @classmethod
    def outline(
        cls,
        pretrained: str = "",
        resolution: str = "keep",
        steps: int | None = None,
        guidance: float | None = None,
        **arguments: Any,
    ) -> Outline:
        """A local folder's own size; that of the published checkpoint where there is none."""
        import diffusers
        import torch

        folder = Path(pretrained or cls.pretrained)
        local = folder.is_dir()
        sampling = cls._sampling(folder, steps, guidance, resolution)
        kind = getattr(diffusers, cls.transformer)
        config, others = cls.published_size(pretrained or cls.pretrained)
        if local:
            config, others = kind.load_config(folder / "transformer"), _others(folder)
        with torch.device("meta"):
            network = kind.from_config(config)
        width, height = sampling.size or (1024, 1024)
        stride = 2 * (cls._scale(json.loads((folder / "vae" / "config.json").read_text())) if local else 8)
        tokens = 2 * (width // stride) * (height // stride) + sampling.text_lengths[0]
        made = network.config
        return Outline(
            network,
            tokens,
            other_parameters=others,
            blocks=made.num_layers + made.get("num_single_layers", 0),
            width=made.num_attention_heads * made.attention_head_dim,
            steps=sampling.steps,
            evaluations=cls.evaluations_a_step(folder, sampling.guidance),
        )

    @staticmethod
    def _scale(codec: Mapping[str, Any]) -> int:
        """Pixels a side of one latent of the codec with this configuration."""
        return int(2 ** (len(codec["block_out_channels"]) - 1))

    @property
    def license(self) -> str:
        return self.about.licence

    @cached_property
    def device(self) -> str:
        return self._loading.pick_device()

    @cached_property
    def pipe(self) -> Any:
        """The diffusers pipeline on its device."""
        return self._loading.load(self.pipeline, self._folder, self.encoders)

    @property
    def network(self) -> nn.Module:
        network: nn.Module = self.pipe.transformer if self._network is None else self._network
        return network

    @network.setter
    def network(self, network: nn.Module) -> None:
        self._network = network

    @property
    def text_encoders(self) -> list[nn.Module]:
        return [getattr(self.pipe, name) for name in self.encoders]

    @property
    def _codec_dtype(self) -> torch.dtype:
        """Of its first weight: diffusers looks at all of them to say it, which takes longer than the pixels do."""
        dtype: torch.dtype = next(self.pipe.vae.parameters()).dtype
        return dtype

    @property
    def _stride(self) -> int:
        """Pixels a side of one token: the codec's scale, packed 2 x 2."""
        return int(self.pipe.vae_scale_factor) * 2

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Raises:
        UsageError: it would be less than a token.
        """
        return whole_tokens(self._size or self.model_size(size), self._stride)

    @abstractmethod
    def model_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) at which the published pipeline edits an image of ``size``."""

    def text_length(self, instruction: str) -> int | None:
        tokens = self.count_tokens(instruction)
        return next((length for length in self._text_lengths if tokens <= length), None)

    @abstractmethod
    def count_tokens(self, instruction: str) -> int:
        """Of what the text encoder is given."""

    def noise(self, seeds: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
        """Drawn on the CPU, so that a seed means the same noise on every device."""
        import torch

        width, height = (side // self._stride for side in size)
        shape, dtype = self.latent_shape(width, height), self.pipe.transformer.dtype
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) for seed in seeds]
        return self.pack(torch.stack(drawn).to(self.device))

    @abstractmethod
    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Of the latents of one image, before :meth:`pack`; ``width`` and ``height`` in tokens."""

    @abstractmethod
    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        """[n, ...] -> [n, tokens, channels]."""

    def sigmas(self, size: tuple[int, int]) -> list[float]:
        import numpy as np

        scheduler = self.pipe.scheduler
        mu = self.shift(math.prod(side // self._stride for side in size))
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / self.steps, self.steps), mu=mu)
        return [float(sigma) for sigma in scheduler.sigmas]

    def shift(self, tokens: int) -> float:
        """mu of the schedule: linear in the tokens of the image that is made, as for FLUX.1 and Qwen-Image."""
        from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

        config = self.pipe.scheduler.config
        ends = ("base_image_seq_len", 256), ("max_image_seq_len", 4096), ("base_shift", 0.5), ("max_shift", 1.15)
        return float(calculate_shift(tokens, *(config.get(name, otherwise) for name, otherwise in ends)))

    def pixels(self, images: Sequence[Image]) -> torch.Tensor:
        """[n, 3, height, width] in -1..1, on the device and in the codec's format."""
        pixels: torch.Tensor = self.pipe.image_processor.preprocess(list(images))
        return pixels.to(self.device, self._codec_dtype)

    def shown(self, pixels: torch.Tensor) -> list[Image]:
        """[n, 3, height, width] in -1..1 as RGB images of 8 bit."""
        images: list[Image] = self.pipe.image_processor.postprocess(pixels, output_type="pil")
        return images


def asked_size(resolution: str) -> tuple[int, int] | None:
    """The (width, height) that a resolution policy names, None = the model's own.

    Raises:
        UsageError: it is no policy.
    """
    found = re.fullmatch(r"(?:(?:keep|fixed):(\d+)x(\d+)|keep|model)", resolution)
    if found is None:
        raise UsageError(f"resolution must be keep, keep:WxH, model or fixed:WxH, not '{resolution}'")
    if found[1] is None:
        return None
    size = int(found[1]), int(found[2])
    if any(side < _TOKEN or side % _TOKEN for side in size):
        raise UsageError(f"resolution {resolution}: width and height must be multiples of {_TOKEN} pixels")
    return size


def whole_tokens(size: tuple[int, int], token: int, least: int = 0) -> tuple[int, int]:
    """The largest (width, height) within ``size`` in multiples of ``token`` pixels.

    Raises:
        UsageError: there is none, or a side is below ``least``.
    """
    least = max(least, token)
    if min(size) < least:
        raise UsageError(
            f"an image of {size[0]}x{size[1]} pixels is too small, each side has to have {least}: give a larger one, "
            "or edit it larger where the editor has resolution=keep:WxH"
        )
    return size[0] // token * token, size[1] // token * token


def _others(folder: Path) -> int:
    """Parameters of text encoders and codec, from the headers of their files."""
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*/*.safetensors"):
        if path.parent.name != "transformer":
            with safe_open(path, framework="pt") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count
