"""FlowEditor: the one denoising loop that evaluation and training share.

A family of flow-matching editors says how it encodes text and images, predicts a velocity and decodes; sampling,
batching and the memory of text embeddings are here. sigma runs from 1 (noise) to 0 (data), x_s = (1 - s) x_0 + s e, and
the network predicts v = e - x_0.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mteval.editors.base import EditorInfo, EditRequest, EditResult
from mteval.errors import UsageError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

Step = Callable[[int, "torch.Tensor", "torch.Tensor", float, float], "torch.Tensor"]
"""(step from 0, latents in float32, velocity, sigma now, sigma then) -> the next latents."""

Text = Mapping[str, "torch.Tensor"]
"""What a family's text encoders made of one instruction, by the names that the family gives it."""

_KEPT = 2**30
CODEC_BATCH = 16
"""Images that go through the codec together: what more of them need is allocated anew each time, which takes longer."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a batch is conditioned on; n items of one image size, one text length and one number of images.

    Attributes:
        text: name -> [n, ...].
        image: [n, image tokens, channels], the packed latents of the images that are shown, one after the other, the
            one to edit last.
        size: (width, height) in pixels of what is made, and of every image that is shown.
    """

    text: Mapping[str, torch.Tensor]
    image: torch.Tensor
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outline:
    """A family's size, known without its weights: what a plan of a training run is made of.

    Attributes:
        network: on the meta device, so it has shapes and no values.
        tokens: of one edit in the network, the noise, the image to edit and the text together.
        other_parameters: of text encoders and codec, which are never trained.
        blocks, width: of the network. steps: of the sampler. evaluations: forwards of the network a step.
    """

    network: nn.Module
    tokens: int
    other_parameters: int
    blocks: int
    width: int
    steps: int
    evaluations: int = 1


def euler(step: int, latents: torch.Tensor, velocity: torch.Tensor, now: float, then: float) -> torch.Tensor:
    """One deterministic step along the velocity."""
    return latents + (then - now) * velocity


class FlowEditor(ABC):
    """An editor that denoises in a latent space. ``edit`` is complete; a family fills in the rest.

    What a trainer needs beyond an evaluation is ``network``, ``lora_targets``, ``text_encoders`` and ``pipe``.

    Attributes:
        steps: steps of the sampler.
        evaluations: forwards of the network that a velocity takes: 2 with classifier-free guidance.
        info: see :class:`EditorInfo`.
        network: what ``velocity`` runs, and all that training changes; a trainer may put a wrapped one in its place.
        weights_name: of the weights it starts from, as a model card names them. license: theirs.
        pipe: the diffusers pipeline, whose ``save_pretrained`` and ``save_lora_weights`` write standard folders.
        text_sees_images: the text embedding depends on the images too, so it cannot be made ahead of them.
        frees_text_encoders: they leave the accelerator while no text is encoded.
        returns_input_size: what was made is resized to the size of the image that came in; else it stays as it is.
    """

    steps: int
    evaluations: int = 1
    info: EditorInfo
    weights_name: str
    text_sees_images: ClassVar[bool] = False
    frees_text_encoders: bool = False
    returns_input_size: bool = True

    def __init__(self) -> None:
        self._texts: OrderedDict[str, Text] = OrderedDict()
        self._lengths: dict[str, int | None] = {}

    @property
    @abstractmethod
    def license(self) -> str: ...

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

    @classmethod
    @abstractmethod
    def lora_targets(cls, network: nn.Module) -> tuple[str, ...]:
        """The ends of the names of the linear layers that a LoRA adapts; each has a part in the velocity."""

    @property
    @abstractmethod
    def text_encoders(self) -> list[nn.Module]:
        """What ``encode`` runs."""

    @abstractmethod
    def text_length(self, instruction: str) -> int | None:
        """The padded length that holds the instruction, None where none does."""

    @abstractmethod
    def encode(self, instructions: Sequence[str], length: int, images: Sequence[Sequence[Image]]) -> list[Text]:
        """Text embeddings, padded to ``length``.

        Args:
            images: what is shown with each instruction, at the size it came in; empty unless the text sees them.
        """

    @abstractmethod
    def condition(self, images: Sequence[Image]) -> torch.Tensor:
        """Images of the working size -> [n, tokens of one, channels]."""

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
        """The (width, height) at which an image of ``size`` is edited; its own working size is itself."""

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size if self.returns_input_size else self.working_size(size)

    def accepts(self, instruction: str) -> bool:
        return self._length(instruction) is not None

    def _length(self, instruction: str) -> int | None:
        """The text length, counted once: every turn asks for it three times."""
        if instruction not in self._lengths:
            self._lengths[instruction] = self.text_length(instruction)
        return self._lengths[instruction]

    def sample(self, latents: torch.Tensor, condition: Condition, step: Step = euler) -> torch.Tensor:
        """From noise to data, both [n, tokens, channels]; the arithmetic of a step is in float32."""
        import torch

        for k, (now, then) in enumerate(itertools.pairwise(self.sigmas(condition.size))):
            sigma = torch.full((len(latents),), now, device=latents.device, dtype=torch.float32)
            velocity = self.velocity(latents, sigma, condition)
            latents = step(k, latents.float(), velocity.float(), now, then).to(velocity.dtype)
        return latents

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """Requests of one image size, text length and number of images go through the network together."""
        import torch

        groups: dict[Any, list[int]] = defaultdict(list)
        for k, request in enumerate(requests):
            shape = request.image.size, self._length(request.instruction), len(request.context)
            groups[shape].append(k)
        results: dict[int, EditResult] = {}
        with torch.inference_mode():
            for (size, *_), members in groups.items():
                started = time.perf_counter()
                images = self._edit([requests[k] for k in members], size)
                latency = (time.perf_counter() - started) / len(members)
                results.update(
                    (k, EditResult(image, latency=latency)) for k, image in zip(members, images, strict=True)
                )
        return [results[k] for k in range(len(requests))]

    def _edit(self, requests: Sequence[EditRequest], size: tuple[int, int]) -> list[Image]:
        shown = [(*request.context, request.image) for request in requests]
        condition = self.prepare(shown, [request.instruction for request in requests])
        latents = self.sample(self.noise([request.seed for request in requests], condition.size), condition)
        return self.images(latents, condition.size, self.output_size(size))

    def prepare(self, images: Sequence[Sequence[Image]], instructions: Sequence[str]) -> Condition:
        """The condition of a batch.

        Args:
            images: what each item is shown, the image to edit last; the same number for each, and one size.
            instructions: of one text length.
        """
        import torch

        size = self.working_size(images[0][-1].size)
        resized = [[_resized(image, size) for image in shown] for shown in images]
        # The images first: text encoding is many small steps, which storing the last call's images would hold up.
        latents = self._latents([image for shown in resized for image in shown])
        texts = self.texts(instructions, images)
        return Condition(
            text={name: torch.stack([text[name] for text in texts]) for name in texts[0]},
            image=latents.reshape(len(images), -1, latents.shape[2]),
            size=size,
        )

    def encode_images(self, images: Sequence[Image]) -> torch.Tensor:
        """Latents [n, tokens, channels] of images of one size, resized to the working size."""
        work = self.working_size(images[0].size)
        return self._latents([_resized(image, work) for image in images])

    def _latents(self, images: Sequence[Image]) -> torch.Tensor:
        import torch

        return torch.cat([self.condition(part) for part in _parts(images)])

    def images(self, latents: torch.Tensor, work: tuple[int, int], size: tuple[int, int]) -> list[Image]:
        """What ``latents`` [n, tokens, channels] of the working size show, as images of ``size``, RGB of 8 bit."""
        return [_resized(image, size) for part in _parts(latents) for image in self.decode(part, work)]

    def texts(self, instructions: Sequence[str], images: Sequence[Sequence[Image]] = ()) -> list[Text]:
        """Embeddings of ``instructions``, each distinct one computed once; with ``images``, those that see them.

        What was computed last is kept, a gigabyte of it. With instructions of several lengths, each has its own.
        """
        if self.text_sees_images:
            return self._encoded(instructions, images)
        new = [text for text in dict.fromkeys(instructions) if text not in self._texts]
        found = {text: self._texts[text] for text in dict.fromkeys(instructions) if text in self._texts}
        found.update(zip(new, self._encoded(new, ()), strict=True))
        for text, made in found.items():
            self._texts[text] = made
            self._texts.move_to_end(text)
        size = sum(map(_bytes, self._texts.values()))
        while size > _KEPT and len(self._texts) > len(found):
            size -= _bytes(self._texts.popitem(last=False)[1])
        return [found[text] for text in instructions]

    def _encoded(self, instructions: Sequence[str], images: Sequence[Sequence[Image]]) -> list[Text]:
        import torch

        by_length: dict[int, list[int]] = defaultdict(list)
        for k, instruction in enumerate(instructions):
            length = self._length(instruction)
            if length is None:
                raise UsageError(f"the editor cannot read an instruction of this length: {instruction!r}")
            by_length[length].append(k)
        found: dict[int, Text] = {}
        # Not in inference mode: a trainer may use the same embeddings where gradients are taken.
        with torch.inference_mode(False), torch.no_grad(), self.with_text_encoders() if by_length else nullcontext():
            for length, members in by_length.items():
                shown = [images[k] for k in members] if images else []
                found.update(zip(members, self.encode([instructions[k] for k in members], length, shown), strict=True))
        return [found[k] for k in range(len(instructions))]

    @contextmanager
    def with_text_encoders(self) -> Iterator[None]:
        """Within it the text encoders are on the network's device, and stay there."""
        if not self.frees_text_encoders:
            yield
            return
        device = next(self.network.parameters()).device
        for encoder in self.text_encoders:
            encoder.to(device)
        self.frees_text_encoders = False
        try:
            yield
        finally:
            self.frees_text_encoders = True
            if device.type != "cpu":
                for encoder in self.text_encoders:
                    encoder.to("cpu")


def _parts(items: Any) -> Iterator[Any]:
    """A sequence, or a tensor along its first axis, in parts for the codec."""
    return (items[first : first + CODEC_BATCH] for first in range(0, len(items), CODEC_BATCH))


def _bytes(text: Text) -> int:
    return sum(tensor.nbytes for tensor in text.values())


def _resized(image: Image, size: tuple[int, int]) -> Image:
    from PIL import Image as Pillow

    return image if image.size == size else image.resize(size, Pillow.Resampling.LANCZOS)
