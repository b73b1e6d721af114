"""Any pipeline of diffusers that takes an image and an instruction, by its own call; and those with published settings.

The flow-matching families of which a trainer needs more than a call have files of their own (flow_pipeline.py).
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from mteval.config import identity_hash, parse_arguments
from mteval.editors import checkpoints
from mteval.editors.api import resized, same_aspect
from mteval.editors.base import About, BadOutput, Blocked, EditorInfo, EditRequest, EditResult
from mteval.editors.flow_pipeline import asked_size, whole_tokens
from mteval.editors.flux2 import count_klein_tokens, within_a_megapixel
from mteval.editors.loading import Loading
from mteval.errors import UsageError
from mteval.seeds import seeded

if TYPE_CHECKING:
    from PIL.Image import Image

_NONE: Mapping[str, Any] = MappingProxyType({})


class DiffusersEditor:
    """A checkpoint in the diffusers layout, called as its pipeline's class is called: one edit a call.

    Args:
        pretrained: a local folder, or an id on the Hugging Face Hub.
        arguments: of the pipeline's call, over the family's own: a mapping, or on the command line
            ``arguments=[num_inference_steps=20,guidance_scale=5]``. The names are checked when the pipeline is loaded.
        resolution: ``keep`` resizes the image to the nearest size that the pipeline edits without cropping it, and
            the result back to the size that came in; ``keep:WxH`` edits it at W x H.
        image, prompt: how the call names the image and the instruction. template: what ``{}`` in it is replaced in by
            the instruction. several: the call takes a list of images, so many at most.
        lora, device, dtype, offload, compile, quantize: see :class:`mteval.editors.loading.Loading`; ``offload`` =
            ``text`` is for the editors that run the network themselves.
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
        if offload == "text":
            raise UsageError(f"editor '{self.id}' has no offload=text: with offload=model each part leaves the device")
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
        self.info = EditorInfo(
            self.id,
            revision,
            max_images=self._call.get("several", 1),
            settings={**self.arguments, "resolution": resolution},
        )

    @cached_property
    def pipe(self) -> Any:
        """The pipeline on its device.

        Raises:
            UsageError: it cannot be loaded, or its call does not take what it is to be given.
        """
        pipe = self._loading.load(self._class, self._folder)
        takes = inspect.signature(pipe.__call__).parameters
        for name in (self._call["image"], self._call["prompt"], *self.arguments):
            if name not in takes:
                raise UsageError(f"{self._class} takes no '{name}': it takes {', '.join(takes)}")
        return pipe

    @cached_property
    def _takes(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of the pipeline's call."""
        return inspect.signature(self.pipe.__call__).parameters

    @cached_property
    def _device(self) -> str:
        return self._loading.pick_device()

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) at which an image of ``size`` is edited.

        Raises:
            UsageError: the pipeline does not edit at the size that was asked for.
        """
        if self._size is None:
            return self.possible_size(self.published_size(size))
        if (possible := self.possible_size(self._size)) != self._size:
            asked, nearest = (f"{width}x{height}" for width, height in (self._size, possible))
            raise UsageError(f"{self._class} does not edit at {asked}: the nearest is resolution=keep:{nearest}")
        return self._size

    def published_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) to which its authors resize an image of ``size`` before they give it to the pipeline."""
        return size

    def possible_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The nearest (width, height) that the pipeline leaves as it is.

        Of another one it would crop the borders, so that an image that is edited again and again zooms in.

        Raises:
            UsageError: it is too small.
        """
        from diffusers.image_processor import VaeImageProcessor
        from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
        from diffusers.pipelines.joyimage.image_processor import JoyImageEditImageProcessor

        found = (getattr(self.pipe, name, None) for name in ("vae_image_processor", "image_processor"))
        processor = next((one for one in found if isinstance(one, VaeImageProcessor)), None)
        if processor is None:
            return size
        if isinstance(processor, JoyImageEditImageProcessor):
            height, width = processor.get_default_height_width(None, size[1], size[0])
            return width, height
        token = processor.config.vae_scale_factor
        if isinstance(processor, Flux2ImageProcessor):
            return whole_tokens(within_a_megapixel(size), token, least=64)
        return whole_tokens(size, token)

    @cached_property
    def _tokenizers(self) -> list[Any]:
        from transformers import PreTrainedTokenizerBase

        parts = [getattr(part, "tokenizer", part) for part in self.pipe.components.values()]
        return [part for part in parts if isinstance(part, PreTrainedTokenizerBase)]

    def accepts(self, instruction: str) -> bool:
        """Whether one of the pipeline's tokenizers has room for it: where there are several, one is for long texts."""
        prompt = self._prompt(instruction)
        room = [self.text_limit(tokenizer) - self.count_tokens(tokenizer, prompt) for tokenizer in self._tokenizers]
        return max(room, default=0) >= 0

    def text_limit(self, tokenizer: Any) -> int:
        """Tokens after which the pipeline cuts a text: what the tokenizer says, or the call's own argument."""
        own = self._takes["max_sequence_length"].default if "max_sequence_length" in self._takes else None
        limit = self.arguments.get("max_sequence_length", own)
        return int(tokenizer.model_max_length if limit is None else min(limit, tokenizer.model_max_length))

    def count_tokens(self, tokenizer: Any, prompt: str) -> int:
        """Of what counts towards the limit."""
        return len(tokenizer(prompt, verbose=False).input_ids)

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One call each, so what is in a batch cannot matter."""
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> EditResult:
        import torch

        began = time.perf_counter()
        asked = self.call_arguments(request)
        generator = torch.Generator().manual_seed(request.seed)
        # Some pipelines sample the image's latents without the generator they are given.
        with torch.inference_mode(), seeded(request.seed, self._device):
            made = self.pipe(**asked, generator=generator)
        latency = time.perf_counter() - began
        if any(getattr(made, "nsfw_content_detected", None) or ()):
            return EditResult(error=Blocked("the pipeline's safety checker blacked the image out"), latency=latency)
        image, size = _first(made), self.working_size(request.image.size)
        if not same_aspect(image.size, size):
            told = f"an image of {image.width}x{image.height} pixels for one of {size[0]}x{size[1]}"
            error = BadOutput(f"{told}: resolution=keep:WxH names a size that the pipeline makes")
            return EditResult(error=error, latency=latency)
        return EditResult(resized(image.convert("RGB"), request.image.size), latency=latency)

    def call_arguments(self, request: EditRequest) -> dict[str, Any]:
        """What the pipeline is called with for this request, but for the generator."""
        work = self.working_size(request.image.size)
        shown = [resized(image, work) for image in (*request.context, request.image)]
        size: dict[str, int] = {}
        if self._size is not None and {"width", "height"} <= self._takes.keys():
            size = {"width": work[0], "height": work[1]}
        return {
            self._call["image"]: shown if "several" in self._call else shown[0],
            self._call["prompt"]: self._prompt(request.instruction),
            **size,
            **self.arguments,
        }

    def _prompt(self, instruction: str) -> str:
        template: str = self._call["template"]
        return template.replace("{}", instruction)


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
    """InstructPix2Pix (SD 1.5): 100 steps, guidance 7.5 for the text and 1.5 for the image, at about 512 pixels.

    Args: as for :class:`DiffusersEditor`; ``resolution`` = ``keep`` edits at the size of :meth:`published_size`.
    """

    id = "instruct-pix2pix"
    about = About(
        "InstructPix2Pix on Stable Diffusion 1.5",
        "open weights",
        "MIT",
        settings="100 steps, guidance 7.5 for the text and 1.5 for the image, at about 512 pixels",
    )
    pretrained = "timbrooks/instruct-pix2pix"
    pipeline = "StableDiffusionInstructPix2PixPipeline"
    # github.com/timothybrooks/instruct-pix2pix: the steps of edit_cli.py, the guidance of edit_app.py (the former's is
    # 1.2 for the image); all three the same in EdiVal-Bench.
    published = MappingProxyType({"num_inference_steps": 100, "guidance_scale": 7.5, "image_guidance_scale": 1.5})

    def published_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Scaled so that the longer side is about 512 pixels and the shorter one a multiple of 64, as in edit_cli.py.

        There the longer side is cropped to a multiple of 64; here it is rounded to one, as a crop would zoom in at
        every turn.
        """
        units = math.ceil(8 * min(size) / max(size))
        return 64 * round(size[0] * units / min(size)), 64 * round(size[1] * units / min(size))


class MagicBrush(InstructPix2Pix):
    """InstructPix2Pix fine-tuned on MagicBrush: 100 steps, guidance 7 and 1.5, as EdiVal-Bench samples it.

    Args: as for :class:`InstructPix2Pix`.
    """

    id = "magicbrush"
    about = About(
        "InstructPix2Pix fine-tuned on MagicBrush",
        "open weights",
        "its page's",
        settings="100 steps, guidance 7 for the text and 1.5 for the image, at about 512 pixels",
    )
    pretrained = "vinesmsuic/magicbrush-jul7"
    published = MappingProxyType({"num_inference_steps": 100, "guidance_scale": 7.0, "image_guidance_scale": 1.5})


class OmniGen(DiffusersEditor):
    """OmniGen v1: 50 steps, guidance 2 for the text and 1.6 for the image.

    The example of an image edit in diffusers' guide to OmniGen (2.5 for the text is that of its text-to-image), with
    the pipeline's own number of steps.

    Args: as for :class:`DiffusersEditor`.
    """

    id = "omnigen"
    about = About(
        "OmniGen v1",
        "open weights",
        "MIT",
        settings="50 steps, guidance 2 for the text and 1.6 for the image",
        needs=("vision",),
    )
    pretrained = "Shitao/OmniGen-v1-diffusers"
    pipeline = "OmniGenPipeline"
    published = MappingProxyType(
        {
            "num_inference_steps": 50,
            "guidance_scale": 2.0,
            "img_guidance_scale": 1.6,
            "use_input_image_size_as_output": True,
        }
    )
    call = MappingProxyType(
        {"image": "input_images", "prompt": "prompt", "template": "<img><|image_1|></img> {}", "several": 1}
    )

    def possible_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The longer side at most ``max_input_image_size``, both multiples of 16: OmniGen's processor crops others."""
        scale = min(1, self.arguments.get("max_input_image_size", 1024) / max(size))
        return whole_tokens((round(size[0] * scale), round(size[1] * scale)), 16)


class LongCatImageEdit(DiffusersEditor):
    """LongCat-Image-Edit: 50 steps, guidance 4.5, the example of its pipeline; always at a megapixel.

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

    def possible_size(self, size: tuple[int, int]) -> tuple[int, int]:
        from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit as longcat

        width, height = longcat.calculate_dimensions(1024 * 1024, size[0] / size[1])
        return width, height

    def text_limit(self, tokenizer: Any) -> int:
        return int(self.pipe.tokenizer_max_length)

    def count_tokens(self, tokenizer: Any, prompt: str) -> int:
        """What stands in quotation marks is read letter by letter."""
        from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import split_quotation

        parts = [[*part] if quoted else [part] for part, quoted in split_quotation(prompt)]
        words = [word for part in parts for word in part]
        return sum(len(tokenizer(word, add_special_tokens=False).input_ids) for word in words)


class JoyImageEdit(DiffusersEditor):
    """JoyAI-Image-Edit: 40 steps, guidance 4, the example of its pipeline; at the nearest of its own sizes.

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

    def count_tokens(self, tokenizer: Any, prompt: str) -> int:
        """The image counts too: at most a megapixel, in the patches of the language model."""
        reader = self.pipe.processor.image_processor
        side = 1024 // int(reader.patch_size * reader.merge_size)
        return super().count_tokens(tokenizer, prompt) + side * side


class Flux2KleinKV(DiffusersEditor):
    """FLUX.2 [klein] 9B KV, which keeps keys and values of the image it edits: 4 steps, distilled.

    The example of its pipeline; Args as for :class:`DiffusersEditor`.
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

    def count_tokens(self, tokenizer: Any, prompt: str) -> int:
        return count_klein_tokens(tokenizer, prompt)
