"""DINOv2 and DINOv3: what their transformers make of the whole image, the tokens of its places told from the others.

The image is resized as it is, never cropped, so that a patch stands for a place. Preparing it is done here: DINOv3's
image processor in transformers needs torchvision, and DINOv2's cuts out the middle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from mteval import devices
from mteval.errors import UsageError
from mteval.perception.base import Features
from mteval.pretrained import fingerprint, load_model, locate_model

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_BATCH = 32
"""Images of one size that go through the network together."""


class _Dino:
    """An encoder of the family: tokens are [summary, registers, patches row by row], as its configuration says.

    Args:
        pretrained: a folder, or an id on the Hugging Face Hub (default: the base model). revision: of it there.
        size: ``WxH`` in pixels that every image is resized to, or ``keep``: its own, to the nearest whole patch.
        device, dtype: see :mod:`mteval.devices`.

    Raises:
        UsageError: no weights, those of another model, or a size that is not made of whole patches.
    """

    base: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    how_to_get: ClassVar[str]
    interpolation: ClassVar[Literal["bilinear", "bicubic"]]

    def __init__(
        self,
        pretrained: str | None = None,
        revision: str | None = None,
        size: str = "224x224",
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        devices.check(device, dtype)
        self._folder = locate_model(pretrained or self.base, revision, self.model_types, self.how_to_get)
        self._device, self._dtype = device, dtype
        prepared = self._folder / "preprocessor_config.json"
        if not prepared.is_file():
            raise UsageError(f"{self._folder} has no preprocessor_config.json: download the checkpoint again")
        told = json.loads(prepared.read_text())
        self._mean, self._deviation = (np.array(told[name], np.float32) for name in ("image_mean", "image_std"))
        self._patch = int(json.loads((self._folder / "config.json").read_text())["patch_size"])
        self._size = _asked_size(size, self._patch)
        self.revision = f"{fingerprint(self._folder)}-{size}-{dtype}"

    def encode(self, images: Sequence[Image]) -> list[Features]:
        """The features of each image, in their order; [rows, columns] of the patches follow its size."""
        import torch

        pixels = [self._pixels(image) for image in images]
        alike: dict[tuple[int, ...], list[int]] = {}
        for k, one in enumerate(pixels):
            alike.setdefault(tuple(one.shape), []).append(k)
        found: dict[int, Features] = {}
        for places in alike.values():
            for first in range(0, len(places), _BATCH):
                batch = places[first : first + _BATCH]
                stack = torch.stack([pixels[k] for k in batch])
                found.update(zip(batch, self._features(stack), strict=True))
        return [found[k] for k in range(len(images))]

    @cached_property
    def _model(self) -> Any:
        return load_model("AutoModel", self._folder, self._device, self._dtype)

    def _features(self, pixels: torch.Tensor) -> list[Features]:
        import torch

        with torch.inference_mode():
            output = self._model(pixel_values=pixels.to(self._model.device, self._model.dtype))
        tokens = output.last_hidden_state.float().cpu().numpy()  # [images, tokens, channels]
        registers = int(getattr(self._model.config, "num_register_tokens", 0))  # DINOv2 without them says nothing
        grid = (pixels.shape[2] // self._patch, pixels.shape[3] // self._patch, tokens.shape[2])
        return [Features(one[0], one[1 : 1 + registers], one[1 + registers :].reshape(grid)) for one in tokens]

    def _pixels(self, image: Image) -> torch.Tensor:
        """[3, height, width]: RGB in [0, 1], resized with antialiasing, then (x - mean) / deviation."""
        import torch

        width, height = self._size or (_whole(side, self._patch) for side in image.size)
        channels = torch.from_numpy(np.array(image, np.float32).transpose(2, 0, 1) / 255)[None]
        resized = torch.nn.functional.interpolate(channels, (height, width), mode=self.interpolation, antialias=True)
        mean, deviation = (torch.from_numpy(x)[:, None, None] for x in (self._mean, self._deviation))
        return (resized[0].clamp(0, 1) - mean) / deviation


def _asked_size(size: str, patch: int) -> tuple[int, int] | None:
    """(width, height) of ``WxH``, None for ``keep``."""
    if size == "keep":
        return None
    width, times, height = size.partition("x")
    if not (times and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"size is WxH in pixels or keep, not '{size}'")
    found = int(width), int(height)
    if any(side < patch or side % patch for side in found):
        raise UsageError(f"size={size} is not made of whole patches of {patch} pixels")
    return found


def _whole(side: int, patch: int) -> int:
    return max(1, round(side / patch)) * patch


class Dinov2(_Dino):
    """DINOv2, with registers or without.

    Bicubic, mean (0.485, 0.456, 0.406) and deviation (0.229, 0.224, 0.225), those of ImageNet, as its
    ``preprocessor_config.json`` says; but the whole image at 224 x 224 where that one takes the middle of 256.

    Args, Raises: see :class:`_Dino`.
    """

    base = "facebook/dinov2-base"
    model_types = ("dinov2", "dinov2_with_registers")
    how_to_get = (
        "run `hf download facebook/dinov2-base` (0.35 GB, Apache-2.0), or give a local folder with pretrained=FOLDER"
    )
    interpolation = "bicubic"


class Dinov3(_Dino):
    """DINOv3, the vision transformers.

    224 x 224, bilinear, after the scaling to [0, 1] and before the normalisation, with the mean and deviation of its
    ``preprocessor_config.json`` (ImageNet's for the web checkpoints, others for the satellite ones): what
    ``DINOv3ViTImageProcessor`` of transformers does on torchvision.

    Args, Raises: see :class:`_Dino`.
    """

    base = "facebook/dinov3-vitb16-pretrain-lvd1689m"
    model_types = ("dinov3_vit",)
    how_to_get = (
        "accept its licence on huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m, `hf auth login`, run "
        "`hf download facebook/dinov3-vitb16-pretrain-lvd1689m` (0.35 GB), or give a folder with pretrained=FOLDER"
    )
    interpolation = "bilinear"
