"""Any pipeline of diffusers that takes an image and an instruction, by its own call; and those with published settings.

The flow-matching families of which a trainer needs more than a call have files of their own (flow_pipeline.py).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from mteval.config import identity_hash, parse_arguments
from mteval.editors import checkpoints
from mteval.editors.api import resized, same_aspect
from mteval.editors.base import About, BadOutput, EditorInfo, EditRequest, EditResult
from mteval.editors.flow_pipeline import asked_size
from mteval.editors.loading import Loading
from mteval.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_NONE: Mapping[str, Any] = MappingProxyType({})


class DiffusersEditor:
    """A checkpoint in the diffusers layout, called as its pipeline's class is called: one edit a call.

    Args:
        pretrained: a local folder, or an id on the Hugging Face Hub.
        arguments: of the pipeline's call, over the family's own: a mapping, or on the command line
            ``arguments=[num_inference_steps=20,guidance_scale=5]``. The names are checked when the pipeline is loaded.
        resolution: ``keep`` gives the image as it came in and resizes the result back; ``keep:WxH`` resizes it to
            W x H first.
        image, prompt: how the call names the image and the instruction. template: what ``{}`` in it is replaced in by
            the instruction. several: the call takes a list of images, so many at most.
        lora, device, dtype, offload, compile, quantize: see :class:`mteval.editors.loading.Loading`.
        revision: of the Hub repository.

    Raises:
        UsageError: see :class:`mteval.editors.flow_pipeline.FlowPipeline`.
    """

    id: ClassVar[str] = "diffusers"
    about: ClassVar[About] = About(
        "any diffusers pipeline that takes an image and an instruction",
        "open weights",
        "the checkpoint's own",
        settings="the pipeline's own",
        arguments="pretrained=OWNER/NAME",
    )
    pretrained: ClassVar[str] = ""
    pipeline: ClassVar[str] = ""
    how_to_get: ClassVar[str] = "download it with `hf download`, or give a local folder with pretrained=FOLDER"
    published: ClassVar[Mapping[str, Any]] = _NONE
    call: ClassVar[Mapping[str, Any]] = MappingProxyType({"image": "image", "prompt": "prompt", "template": "{}"})

    def __init__(
        self,
        pretrained: str | None = None,
        arguments: Mapping[str, Any] | Sequence[str] = (),
        resolution: str = "keep",
        image: str | None = None,
        prompt: str | None = None,
        template: str | None = None,
        several: int | None = None,
        lora: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        offload: str = "none",
        compile: bool = False,
        quantize: str | None = None,
    ) -> None:
        self.about.check_needs(self.id)
        self._loading = Loading(device, dtype, lora, offload, compile, quantize)
        if not resolution.startswith("keep"):
            raise UsageError(f"resolution must be keep or keep:WxH, not '{resolution}'")
        self._size = asked_size(resolution)
        name = pretrained or self.pretrained
        if not name:
            raise UsageError(f"editor '{self.id}' needs pretrained=, a folder or an id on the Hugging Face Hub")
        self._folder = checkpoints.locate(name, revision, self.pipeline, self.how_to_get)
        self._class = self.pipeline or checkpoints.pipeline_class(self._folder)
        given = arguments if isinstance(arguments, Mapping) else _mapping(arguments)
        self.arguments = {**self.published, **given}
        told = {"image": image, "prompt": prompt, "template": template, "several": several}
        self._call = {**self.call, **{key: value for key, value in told.items() if value is not None}}
        if "{}" not in self._call["template"]:
            raise UsageError(f"template must hold {{}}, where the instruction goes, not '{self._call['template']}'")
        weights = [self._folder] if lora is None else [self._folder, Path(lora)]
        settings = identity_hash({"arguments": self.arguments, "call": self._call, "size": self._size})
        revision = f"{checkpoints.fingerprint(*weights)}-{settings}"
        self.info = EditorInfo(self.id, revision, max_images=self._call.get("several", 1))

    @cached_property
    def pipe(self) -> Any:
        """The pipeline on its device.

        Raises:
            UsageError: its call does not take what it is to be given.
        """
        pipe = self._loading.load(self._class, self._folder)
        takes = inspect.signature(pipe.__call__).parameters
        for name in (self._call["image"], self._call["prompt"], *self.arguments):
            if name not in takes:
                raise UsageError(f"{self._class} takes no '{name}': it takes {', '.join(takes)}")
        return pipe

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def accepts(self, instruction: str) -> bool:
        return True

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One call each, so what is in a batch cannot matter."""
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> EditResult:
        import torch

        began = time.perf_counter()
        asked = self.call_arguments(request)
        generator = torch.Generator().manual_seed(request.seed)
        with torch.inference_mode():
            made = self.pipe(**asked, generator=generator)
        image = _first(made)
        size = self._size or request.image.size
        if not same_aspect(image.size, size):
            error = BadOutput(f"an image of {image.width}x{image.height} pixels for one of {size[0]}x{size[1]}")
            return EditResult(error=error, latency=time.perf_counter() - began)
        image = resized(image.convert("RGB"), request.image.size)
        return EditResult(image, latency=time.perf_counter() - began)

    def call_arguments(self, request: EditRequest) -> dict[str, Any]:
        """What the pipeline is called with for this request, but for the generator."""
        shown = [resized(image, self._size or image.size) for image in (*request.context, request.image)]
        several = "several" in self._call
        takes = inspect.signature(self.pipe.__call__).parameters
        size: dict[str, int] = {}
        if self._size is not None and {"width", "height"} <= set(takes):
            size = {"width": self._size[0], "height": self._size[1]}
        return {
            self._call["image"]: shown if several else shown[0],
            self._call["prompt"]: self._call["template"].replace("{}", request.instruction),
            **size,
            **self.arguments,
        }


def _first(made: Any) -> Image:
    """The image in a pipeline's output; of a video the last frame."""
    for name in ("images", "image", "frames"):
        found = getattr(made, name, None)
        if found is not None:
            image: Image = found[0][-1] if isinstance(found[0], Sequence) else found[0]
            return image
    raise TypeError(f"{type(made).__name__} holds no image")


def _mapping(pairs: Sequence[str]) -> dict[str, Any]:
    return {key: value for pair in pairs for key, value in parse_arguments(str(pair)).items()}


class InstructPix2Pix(DiffusersEditor):
    """InstructPix2Pix (SD 1.5): 100 steps, guidance 7.5 for the text and 1.5 for the image, as its authors sample it.

    Args: as for :class:`DiffusersEditor`.
    """

    id = "instruct-pix2pix"
    about = About(
        "InstructPix2Pix on Stable Diffusion 1.5",
        "open weights",
        "MIT",
        settings="100 steps, guidance 7.5 for the text and 1.5 for the image",
    )
    pretrained = "timbrooks/instruct-pix2pix"
    pipeline = "StableDiffusionInstructPix2PixPipeline"
    # github.com/timothybrooks/instruct-pix2pix, edit_cli.py; the same in EdiVal-Bench.
    published = MappingProxyType({"num_inference_steps": 100, "guidance_scale": 7.5, "image_guidance_scale": 1.5})


class MagicBrush(InstructPix2Pix):
    """InstructPix2Pix fine-tuned on MagicBrush: 100 steps, guidance 7 and 1.5, as EdiVal-Bench samples it.

    Args: as for :class:`DiffusersEditor`.
    """

    id = "magicbrush"
    about = About(
        "InstructPix2Pix fine-tuned on MagicBrush",
        "open weights",
        "its page's",
        settings="100 steps, guidance 7 for the text and 1.5 for the image",
    )
    pretrained = "vinesmsuic/magicbrush-jul7"
    published = MappingProxyType({"num_inference_steps": 100, "guidance_scale": 7.0, "image_guidance_scale": 1.5})


class OmniGen(DiffusersEditor):
    """OmniGen v1: 50 steps, guidance 2.5 for the text and 1.6 for the image, the defaults of its pipeline.

    Args: as for :class:`DiffusersEditor`.
    """

    id = "omnigen"
    about = About(
        "OmniGen v1",
        "open weights",
        "MIT",
        settings="50 steps, guidance 2.5 for the text and 1.6 for the image",
    )
    pretrained = "Shitao/OmniGen-v1-diffusers"
    pipeline = "OmniGenPipeline"
    published = MappingProxyType(
        {
            "num_inference_steps": 50,
            "guidance_scale": 2.5,
            "img_guidance_scale": 1.6,
            "use_input_image_size_as_output": True,
        }
    )
    call = MappingProxyType(
        {"image": "input_images", "prompt": "prompt", "template": "<img><|image_1|></img> {}", "several": 1}
    )


class LongCatImageEdit(DiffusersEditor):
    """LongCat-Image-Edit: 50 steps, guidance 4.5, the example of its pipeline.

    Args: as for :class:`DiffusersEditor`.
    """

    id = "longcat-image-edit"
    about = About(
        "LongCat-Image-Edit by Meituan",
        "open weights",
        "Apache-2.0",
        settings="50 steps, guidance 4.5",
        needs=("vision",),
    )
    pretrained = "meituan-longcat/LongCat-Image-Edit"
    pipeline = "LongCatImageEditPipeline"
    published = MappingProxyType({"num_inference_steps": 50, "guidance_scale": 4.5, "negative_prompt": ""})


class JoyImageEdit(DiffusersEditor):
    """JoyAI-Image-Edit: 40 steps, guidance 4, the example of its pipeline.

    Args: as for :class:`DiffusersEditor`.
    """

    id = "joy-image-edit"
    about = About(
        "JoyAI-Image-Edit by JD",
        "open weights",
        "its page's",
        settings="40 steps, guidance 4",
        needs=("vision",),
    )
    pretrained = "jdopensource/JoyAI-Image-Edit-Diffusers"
    pipeline = "JoyImageEditPipeline"
    published = MappingProxyType({"num_inference_steps": 40, "guidance_scale": 4.0})


class Flux2KleinKV(DiffusersEditor):
    """FLUX.2 [klein] 9B KV, which keeps keys and values of the image it edits: 4 steps, distilled.

    Args: as for :class:`DiffusersEditor`.
    """

    id = "flux2-klein-kv"
    about = About(
        "FLUX.2 [klein] 9B KV, which keeps keys and values of the image it edits",
        "open weights",
        "FLUX Non-Commercial License",
        settings="4 steps, distilled",
        images=4,
    )
    pretrained = "black-forest-labs/FLUX.2-klein-9b-kv"
    pipeline = "Flux2KleinKVPipeline"
    published = MappingProxyType({"num_inference_steps": 4})
    call = MappingProxyType({"image": "image", "prompt": "prompt", "template": "{}", "several": 4})
