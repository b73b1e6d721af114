"""Qwen-Image-Edit and its Plus line (2509, 2511): the text is read by a vision-language model that sees the images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteval.editors.base import About
from mteval.editors.checkpoints import SamplingDefaults
from mteval.editors.flow import Condition, Text
from mteval.editors.flow_pipeline import FlowPipeline

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

_NEGATIVE = " "
_AREA = 1024 * 1024
_LENGTHS = (64, 128, 256, 512, 1024)


class QwenImageEdit(FlowPipeline):
    """Qwen-Image-Edit by Alibaba's Qwen team: one image, classifier-free guidance against a blank instruction.

    50 steps and guidance 4 (``true_cfg_scale``, with the negative prompt ``" "``, without which the pipeline would
    silently leave guidance out) are the example of the model's page on the Hub; Args and Raises as for
    :class:`FlowPipeline`.
    """

    id = "qwen-image-edit"
    about = About(
        "Qwen-Image-Edit by Alibaba's Qwen team",
        "open weights",
        "Apache-2.0",
        settings='50 steps, classifier-free guidance 4 with negative prompt " "',
        needs=("vision",),
    )
    pretrained = "Qwen/Qwen-Image-Edit"
    pipeline, transformer = "QwenImageEditPipeline", "QwenImageTransformer2DModel"
    text_sees_images = True
    how_to_get = (
        "run `hf download Qwen/Qwen-Image-Edit` (about 58 GB), or give a local folder with "
        "--model-args pretrained=FOLDER"
    )

    @classmethod
    def published_size(cls, pretrained: str) -> tuple[dict[str, Any], int]:
        """The transformer's defaults are Qwen-Image's; Qwen2.5-VL-7B and the codec."""
        return {}, 8_292_166_656 + 126_892_531

    @classmethod
    def evaluations_a_step(cls, folder: Path, guidance: float) -> int:
        return 2 if guidance > 1 else 1

    @classmethod
    def published(cls, folder: Path) -> SamplingDefaults:
        return SamplingDefaults(steps=50, guidance=4.0, text_lengths=_LENGTHS)

    @staticmethod
    def _scale(codec: Mapping[str, Any]) -> int:
        return int(2 ** len(codec["temperal_downsample"]))

    @classmethod
    def lora_targets(cls, network: nn.Module) -> tuple[str, ...]:
        """Attention and both feed-forwards, as flow_grpo adapts it, but for the text of the last block.

        That goes nowhere: without a gradient of its own, distributed training would wait for it.
        """
        blocks: Any = network.transformer_blocks
        text = "attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2"
        return (
            *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_v_proj"),
            *("img_mlp.net.0.proj", "img_mlp.net.2"),
            *(f"transformer_blocks.{k}.{part}" for k in range(len(blocks) - 1) for part in text),
        )

    def model_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """A megapixel of the same aspect ratio in multiples of 32.

        What is of that kind already stays: the pipeline's own rounding would change some sizes again at every turn.
        """
        already = all(side % 32 == 0 for side in size) and abs(math.prod(size) / _AREA - 1) < 1 / 8
        return size if already else _of_area(_AREA, size)

    def count_tokens(self, instruction: str) -> int:
        return len(self.pipe.tokenizer(instruction).input_ids)

    def encode(self, instructions: Sequence[str], length: int, images: Sequence[Sequence[Image]]) -> list[Text]:
        found: list[Text] = []
        for instruction, shown in zip(instructions, images, strict=True):
            text = self._padded(instruction, shown, length)
            if self.evaluations == 2:
                without = self._padded(_NEGATIVE, shown, length)
                text.update({f"negative_{name}": tensor for name, tensor in without.items()})
            found.append(text)
        return found

    def _padded(self, instruction: str, shown: Sequence[Image], length: int) -> dict[str, torch.Tensor]:
        """``tokens`` and ``mask`` of one instruction, as long as if it had ``length`` tokens."""
        import torch

        (tokens,), _ = self.pipe._get_qwen_prompt_embeds(instruction, self.seen(shown), self.device)
        spare = length - self.count_tokens(instruction)
        mask = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        pad = torch.nn.functional.pad
        return {"tokens": pad(tokens, (0, 0, 0, spare)), "mask": pad(mask, (0, spare))}

    def seen(self, shown: Sequence[Image]) -> Any:
        """What the language model is shown: the image at the size at which it is edited."""
        (image,) = shown
        width, height = self.working_size(image.size)
        return self.pipe.image_processor.resize(image, height, width)

    def condition(self, images: Sequence[Image]) -> torch.Tensor:
        latents = self.pipe._encode_vae_image(self.pixels(images).unsqueeze(2), generator=None)
        return self.pack(latents)

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return 1, self.pipe.latent_channels, 2 * height, 2 * width

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        channels, (height, width) = self.pipe.latent_channels, latents.shape[3:]
        packed: torch.Tensor = self.pipe._pack_latents(latents, len(latents), channels, height, width)
        return packed

    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        v = self._forward(latents, sigma, condition, "")
        if self.evaluations == 1:
            return v
        without = self._forward(latents, sigma, condition, "negative_")
        guided = without + self.guidance * (v - without)
        # As the pipeline does: as long, token by token, as without guidance.
        length, wanted = (x.norm(dim=-1, keepdim=True) for x in (guided, v))
        rescaled: torch.Tensor = guided * (wanted / length)
        return rescaled

    def _forward(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition, which: str) -> torch.Tensor:
        import torch

        dtype, count = latents.dtype, latents.shape[1]
        width, height = (side // self._stride for side in condition.size)
        shapes = [(1, height, width)] * (1 + condition.image.shape[1] // count)
        out: torch.Tensor = self.network(
            hidden_states=torch.cat([latents, condition.image.to(dtype)], dim=1),
            timestep=sigma.to(dtype),
            guidance=None,
            encoder_hidden_states=condition.text[f"{which}tokens"],
            encoder_hidden_states_mask=condition.text[f"{which}mask"],
            img_shapes=[shapes] * len(latents),
            return_dict=False,
        )[0]
        return out[:, :count]

    def decode(self, latents: torch.Tensor, size: tuple[int, int]) -> list[Image]:
        import torch

        vae = self.pipe.vae
        grid = self.pipe._unpack_latents(latents, size[1], size[0], self.pipe.vae_scale_factor).to(self._codec_dtype)
        mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1).to(grid) for name in _STATISTICS)
        return self.shown(vae.decode(grid * std + mean, return_dict=False)[0][:, :, 0])


_STATISTICS = "latents_mean", "latents_std"


class QwenImageEditPlus(QwenImageEdit):
    """Qwen-Image-Edit-2509, -2511 and what follows them: up to three images.

    40 steps and guidance 4 with the negative prompt ``" "`` are the example of the models' pages on the Hub; Args and
    Raises as for :class:`FlowPipeline`.
    """

    id = "qwen-image-edit-plus"
    about = About(
        "Qwen-Image-Edit-2509, -2511 and what follows them",
        "open weights",
        "Apache-2.0",
        settings='40 steps, classifier-free guidance 4 with negative prompt " "',
        images=3,
        needs=("vision",),
    )
    pretrained = "Qwen/Qwen-Image-Edit-2511"
    pipeline = "QwenImageEditPlusPipeline"
    how_to_get = (
        "run `hf download Qwen/Qwen-Image-Edit-2511` (about 58 GB), or give a local folder with "
        "--model-args pretrained=FOLDER"
    )

    @classmethod
    def published(cls, folder: Path) -> SamplingDefaults:
        return SamplingDefaults(steps=40, guidance=4.0, text_lengths=_LENGTHS)

    def seen(self, shown: Sequence[Image]) -> Any:
        """Every image at 384 x 384 pixels' area, as the pipeline has it."""
        sizes = [_of_area(384 * 384, image.size) for image in shown]
        resize = self.pipe.image_processor.resize
        return [resize(image, height, width) for image, (width, height) in zip(shown, sizes, strict=True)]


def _of_area(area: int, size: tuple[int, int]) -> tuple[int, int]:
    ratio = size[0] / size[1]
    width = math.sqrt(area * ratio)
    return round(width / 32) * 32, round(width / ratio / 32) * 32
