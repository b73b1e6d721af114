"""FlowEditor: the one denoising loop that evaluation and training share.

A family of flow-matching editors says how it encodes text and images, predicts a velocity and decodes; sampling,
batching and the cache of text embeddings are here. sigma runs from 1 (noise) to 0 (data), x_s = (1 - s) x_0 + s e, and
the network predicts v = e - x_0.
"""

from __future__ import annotations

import itertools
import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mteval.editors.base import EditorInfo, EditRequest, EditResult
from mteval.errors import UsageError
from mteval.registry import nearest

# Before torch is imported: an idle thread of its pool must not spin on a core that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

Step = Callable[[int, "torch.Tensor", "torch.Tensor", float, float], "torch.Tensor"]
"""(step from 0, latents in float32, velocity, sigma now, sigma then) -> the next latents."""

_DEVICES = ("cuda", "mps", "cpu")
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class TextCondition:
    """One instruction: ``tokens`` [length, width] and ``pooled`` [width]."""

    tokens: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True, slots=True)
class Condition:
    """What a batch is conditioned on; n items of one image size and one text length.

    Attributes:
        text: [n, length, width]. pooled: [n, width].
        image: [n, image tokens, channels], the packed latents of the images to edit.
        size: (width, height) in pixels of what is made.
    """

    text: torch.Tensor
    pooled: torch.Tensor
    image: torch.Tensor
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outline:
    """A family's size, known without its weights: what a plan of a training run is made of.

    Attributes:
        network: on the meta device, so it has shapes and no values.
        tokens: of one edit in the network, the noise, the image to edit and the text together.
        other_parameters: of text encoders and codec, which are never trained.
        blocks, width: of the network. steps: of the sampler.
    """

    network: nn.Module
    tokens: int
    other_parameters: int
    blocks: int
    width: int
    steps: int


def euler(step: int, latents: torch.Tensor, velocity: torch.Tensor, now: float, then: float) -> torch.Tensor:
    """One deterministic step along the velocity."""
    return latents + (then - now) * velocity


class FlowEditor(ABC):
    """An editor that denoises in a latent space. ``edit`` is complete; a family fills in the rest.

    What a trainer needs beyond an evaluation is ``network``, ``lora_targets``, ``text_encoders`` and ``pipe``.

    Attributes:
        steps: velocity evaluations a sample takes.
        info: see :class:`EditorInfo`.
        network: what ``velocity`` runs, and all that training changes; a trainer may put a wrapped one in its place.
        lora_targets: the ends of the names of the network's linear layers that a LoRA adapts.
        weights_name: of the weights it starts from, as a model card names them. license: theirs.
        pipe: the diffusers pipeline, whose ``save_pretrained`` and ``save_lora_weights`` write standard folders.
    """

    steps: int
    info: EditorInfo
    lora_targets: ClassVar[tuple[str, ...]]
    license: ClassVar[str]
    weights_name: str

    def __init__(self) -> None:
        self._texts: dict[str, TextCondition] = {}

    @classmethod
    @abstractmethod
    def outline(cls, **arguments: Any) -> Outline:
        """How large the editor of these arguments is; loads no weights and downloads nothing."""

    @property
    @abstractmethod
    def pipe(self) -> Any: ...

    @property
    @abstractmethod
    def network(self) -> nn.Module: ...

    @network.setter
    @abstractmethod
    def network(self, network: nn.Module) -> None: ...

    @property
    @abstractmethod
    def text_encoders(self) -> list[nn.Module]:
        """What ``encode`` runs: may leave the device while no text is encoded."""

    @abstractmethod
    def text_length(self, instruction: str) -> int | None:
        """The padded length that holds the instruction, None where none does."""

    @abstractmethod
    def encode(self, instructions: Sequence[str], length: int) -> list[TextCondition]:
        """Text embeddings, padded to ``length``."""

    @abstractmethod
    def condition(self, images: Sequence[Image]) -> torch.Tensor:
        """Images of one size -> [n, image tokens, channels]."""

    @abstractmethod
    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        """v at ``latents`` [n, tokens, channels] and ``sigma`` [n], guidance included; differentiable."""

    @abstractmethod
    def decode(self, latents: torch.Tensor, size: tuple[int, int]) -> list[Image]:
        """[n, tokens, channels] -> RGB images of 8 bit, (width, height) = ``size``."""

    @abstractmethod
    def noise(self, seeds: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
        """[n, tokens, channels] of standard normal noise; each item from its own seed alone."""

    @abstractmethod
    def sigmas(self, size: tuple[int, int]) -> list[float]:
        """steps + 1 values from (near) 1 down to 0."""

    @abstractmethod
    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) at which an image of ``size`` is edited."""

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The input's own: what the working size made is resized back, so no turn can change the aspect ratio."""
        return size

    def accepts(self, instruction: str) -> bool:
        return self.text_length(instruction) is not None

    def sample(self, latents: torch.Tensor, condition: Condition, step: Step = euler) -> torch.Tensor:
        """From noise to data, both [n, tokens, channels]; the arithmetic of a step is in float32."""
        import torch

        for k, (now, then) in enumerate(itertools.pairwise(self.sigmas(condition.size))):
            sigma = torch.full((len(latents),), now, device=latents.device, dtype=torch.float32)
            velocity = self.velocity(latents, sigma, condition)
            latents = step(k, latents.float(), velocity.float(), now, then).to(velocity.dtype)
        return latents

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """Requests of one image size and text length go through the network together."""
        import torch

        groups: dict[Any, list[int]] = defaultdict(list)
        for k, request in enumerate(requests):
            groups[request.image.size, self.text_length(request.instruction)].append(k)
        results: dict[int, EditResult] = {}
        with torch.inference_mode():
            for (size, length), members in groups.items():
                started = time.perf_counter()
                images = self._edit([requests[k] for k in members], size, length)
                latency = (time.perf_counter() - started) / len(members)
                results.update(
                    (k, EditResult(image, latency=latency)) for k, image in zip(members, images, strict=True)
                )
        return [results[k] for k in range(len(requests))]

    def _edit(self, requests: Sequence[EditRequest], size: tuple[int, int], length: int) -> list[Image]:
        texts = self.texts([request.instruction for request in requests], length)
        condition = self.prepare([request.image for request in requests], texts)
        latents = self.sample(self.noise([request.seed for request in requests], condition.size), condition)
        return self.images(latents, condition.size, size)

    def prepare(self, images: Sequence[Image], texts: Sequence[TextCondition]) -> Condition:
        """The condition of a batch: images of one size, resized to the working size, with texts of one length."""
        import torch

        return Condition(
            text=torch.stack([text.tokens for text in texts]),
            pooled=torch.stack([text.pooled for text in texts]),
            image=self.encode_images(images),
            size=self.working_size(images[0].size),
        )

    def encode_images(self, images: Sequence[Image]) -> torch.Tensor:
        """Latents [n, tokens, channels] of images of one size, resized to the working size."""
        work = self.working_size(images[0].size)
        return self.condition([_resized(image, work) for image in images])

    def images(self, latents: torch.Tensor, work: tuple[int, int], size: tuple[int, int]) -> list[Image]:
        """What ``latents`` [n, tokens, channels] of the working size show, as images of ``size``, RGB of 8 bit."""
        return [_resized(image, size) for image in self.decode(latents, work)]

    def texts(self, instructions: Sequence[str], length: int) -> list[TextCondition]:
        """Embeddings of ``instructions``; each distinct one is computed once in the life of the editor."""
        new = [text for text in dict.fromkeys(instructions) if text not in self._texts]
        if new:
            self._texts.update(zip(new, self.encode(new, length), strict=True))
        return [self._texts[text] for text in instructions]


def _resized(image: Image, size: tuple[int, int]) -> Image:
    from PIL import Image as Pillow

    return image if image.size == size else image.resize(size, Pillow.Resampling.LANCZOS)


def checked_device(device: str) -> str:
    """``device``, or a UsageError that names the valid ones. Does not import torch."""
    if device.partition(":")[0] not in ("auto", *_DEVICES):
        raise UsageError(f"unknown device '{device}': {nearest(device, ['auto', *_DEVICES])}")
    return device


def checked_dtype(dtype: str) -> str:
    """``dtype``, or a UsageError that names the valid ones. Does not import torch."""
    if dtype not in ("auto", *_DTYPES):
        raise UsageError(f"unknown dtype '{dtype}': {nearest(dtype, ['auto', *_DTYPES])}")
    return dtype


def pick_device(device: str) -> str:
    """``auto`` is the first of cuda, mps, cpu that there is.

    On the CPU the thread pool is cut to the cores that this process may use: a wider one makes small models ten times
    slower.
    """
    import torch

    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"there is no CUDA device for --device {device}: choose another, or leave it away")
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
    return device


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    """``auto`` is float32 on the CPU and bfloat16 elsewhere."""
    import torch

    name = ("float32" if device == "cpu" else "bfloat16") if dtype == "auto" else dtype
    picked: torch.dtype = getattr(torch, name)
    return picked
