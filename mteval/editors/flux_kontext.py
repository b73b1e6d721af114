"""FLUX.1 Kontext, and tiny-kontext: the same classes at a ten-thousandth of the size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteval.editors import checkpoints
from mteval.editors.base import About
from mteval.editors.checkpoints import SamplingDefaults
from mteval.editors.flow import Condition, Text
from mteval.editors.flow_pipeline import FlowPipeline

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn


class FluxKontext(FlowPipeline):
    """FLUX.1 Kontext by Black Forest Labs: one image, guidance embedded.

    28 steps and guidance 2.5 are the example of the model's page on the Hub and the defaults of
    ``FluxKontextPipeline``; Args and Raises as for :class:`FlowPipeline`.
    """

    id = "flux-kontext"
    about = About(
        "FLUX.1 Kontext by Black Forest Labs",
        "open weights",
        "FLUX.1 [dev] Non-Commercial License",
        settings="28 steps, guidance 2.5",
    )
    pretrained = "black-forest-labs/FLUX.1-Kontext-dev"
    pipeline, transformer = "FluxKontextPipeline", "FluxTransformer2DModel"
    encoders = "text_encoder", "text_encoder_2"
    how_to_get = (
        "accept the licence on huggingface.co/black-forest-labs/FLUX.1-Kontext-dev, then run `hf auth login` "
        "and `hf download black-forest-labs/FLUX.1-Kontext-dev` (about 34 GB for the diffusers folders), or give a "
        "local folder with --model-args pretrained=FOLDER"
    )

    @classmethod
    def lora_targets(cls, network: nn.Module) -> tuple[str, ...]:
        """Attention and feed-forward of both kinds of blocks, as flow_grpo adapts Kontext."""
        return (
            *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_add_out"),
            *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"),
        )

    @classmethod
    def published(cls, folder: Path) -> SamplingDefaults:
        return SamplingDefaults(steps=28, guidance=2.5)

    @classmethod
    def published_size(cls, pretrained: str) -> tuple[dict[str, Any], int]:
        """The transformer's defaults are FLUX.1's; T5-XXL's encoder, CLIP-L's text encoder and the codec of FLUX.1."""
        return {"guidance_embeds": True}, 4_762_310_656 + 123_060_480 + 83_819_683

    def model_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Kontext's training size of the nearest aspect ratio, as the pipeline picks it."""
        from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

        ratio = size[0] / size[1]
        _, width, height = min((abs(ratio - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
        return width, height

    def count_tokens(self, instruction: str) -> int:
        return len(self.pipe.tokenizer_2(instruction).input_ids)

    def encode(self, instructions: Sequence[str], length: int, images: Sequence[Sequence[Image]]) -> list[Text]:
        tokens, pooled, _ = self.pipe.encode_prompt(
            prompt=list(instructions), prompt_2=None, device=self.device, max_sequence_length=length
        )
        return [{"tokens": one, "pooled": other} for one, other in zip(tokens, pooled, strict=True)]

    def condition(self, images: Sequence[Image]) -> torch.Tensor:
        vae = self.pipe.vae
        latents = vae.encode(self.pixels(images)).latent_dist.mode()
        return self.pack((latents - vae.config.shift_factor) * vae.config.scaling_factor)

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return self.pipe.vae.config.latent_channels, 2 * height, 2 * width

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = self.pipe._pack_latents(latents.contiguous(), *latents.shape)
        return packed

    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        import torch

        dtype, count = latents.dtype, latents.shape[1]
        guided = self.pipe.transformer.config.guidance_embeds
        tokens = condition.text["tokens"]
        out: torch.Tensor = self.network(
            hidden_states=torch.cat([latents, condition.image.to(dtype)], dim=1),
            timestep=sigma.to(dtype),
            guidance=torch.full_like(sigma, self.guidance) if guided else None,
            pooled_projections=condition.text["pooled"],
            encoder_hidden_states=tokens,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=latents.device, dtype=dtype),
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
        latents = latents.to(self._codec_dtype)
        unpacked = self.pipe._unpack_latents(latents, size[1], size[0], self.pipe.vae_scale_factor)
        return self.shown(
            vae.decode(unpacked / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        )


class TinyKontext(FluxKontext):
    """FLUX.1 Kontext in small, trained on ShapesEdit by ``mttrain pretrain``; the weights ship with mteval.

    Args: as for :class:`FlowPipeline`.
    """

    id = "tiny-kontext"
    about = About(
        "FLUX.1 Kontext in small, trained on ShapesEdit; ships with mteval, for a laptop's processor",
        "open weights",
        "Apache-2.0",
        settings="6 steps",
    )
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
