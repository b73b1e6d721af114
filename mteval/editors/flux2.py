"""FLUX.2 [dev] and [klein]: one transformer, several images, text from a language model's hidden layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
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

_CODEC = 84_046_115
_LARGEST = 1024 * 1024


class _Flux2(FlowPipeline):
    """What the members of the family share."""

    transformer = "Flux2Transformer2DModel"

    @classmethod
    def lora_targets(cls, network: nn.Module) -> tuple[str, ...]:
        """Attention and feed-forward of both kinds of blocks, as for FLUX.1."""
        single: Any = network.single_transformer_blocks
        return (
            *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_add_out"),
            *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            *("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
            # In the other blocks the short name is that of a list of layers.
            *("attn.to_qkv_mlp_proj", *(f"single_transformer_blocks.{k}.attn.to_out" for k in range(len(single)))),
        )

    def model_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Its own; above a megapixel, shrunk to one."""
        return within_a_megapixel(size)

    def encode(self, instructions: Sequence[str], length: int, images: Sequence[Sequence[Image]]) -> list[Text]:
        tokens, _ = self.pipe.encode_prompt(list(instructions), device=self.device, max_sequence_length=length)
        return [{"tokens": one} for one in tokens]

    def condition(self, images: Sequence[Image]) -> torch.Tensor:
        return self.pack(self.pipe._encode_vae_image(self.pixels(images), generator=None))

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return self.pipe.transformer.config.in_channels, height, width

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = self.pipe._pack_latents(latents)
        return packed

    def shift(self, tokens: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return float(compute_empirical_mu(image_seq_len=tokens, num_steps=self.steps))

    def forward(
        self,
        latents: torch.Tensor,
        sigma: torch.Tensor,
        condition: Condition,
        tokens: torch.Tensor,
        guidance: torch.Tensor | None,
    ) -> torch.Tensor:
        """The network's velocity with the text ``tokens`` [n, length, width]."""
        import torch

        dtype, count = latents.dtype, latents.shape[1]
        out: torch.Tensor = self.network(
            hidden_states=torch.cat([latents, condition.image.to(dtype)], dim=1),
            timestep=sigma.to(dtype),
            guidance=guidance,
            encoder_hidden_states=tokens,
            txt_ids=self.pipe._prepare_text_ids(tokens).to(latents.device),
            img_ids=self._positions(condition, count).to(latents.device).expand(len(latents), -1, -1),
            return_dict=False,
        )[0]
        return out[:, :count]

    def _positions(self, condition: Condition, count: int) -> torch.Tensor:
        """[1, tokens, 4]: the image that is made, then those that are shown, told apart by their time."""
        import torch

        width, height = (side // self._stride for side in condition.size)
        empty = torch.empty(1, 1, height, width)
        shown = [empty] * (condition.image.shape[1] // count)
        return torch.cat([self.pipe._prepare_latent_ids(empty), self.pipe._prepare_image_ids(shown)], dim=1)

    def decode(self, latents: torch.Tensor, size: tuple[int, int]) -> list[Image]:
        vae = self.pipe.vae
        width, height = (side // self._stride for side in size)
        grid = latents.transpose(1, 2).unflatten(2, (height, width)).to(self._codec_dtype)
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(grid)
        std = (vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps).sqrt().to(grid)
        return self.shown(vae.decode(self.pipe._unpatchify_latents(grid * std + mean), return_dict=False)[0])


class Flux2Dev(_Flux2):
    """FLUX.2 [dev] by Black Forest Labs: up to six images, guidance embedded.

    50 steps and guidance 4 are the example of the model's page on the Hub; Args and Raises as for
    :class:`FlowPipeline`.
    """

    id = "flux2-dev"
    about = About(
        "FLUX.2 [dev] by Black Forest Labs",
        "open weights",
        "FLUX Non-Commercial License",
        settings="50 steps, guidance 4",
        images=6,
        needs=("vision",),
    )
    pretrained = "black-forest-labs/FLUX.2-dev"
    pipeline = "Flux2Pipeline"
    how_to_get = (
        "accept the licence on huggingface.co/black-forest-labs/FLUX.2-dev, then run `hf auth login` and "
        "`hf download black-forest-labs/FLUX.2-dev` (about 113 GB), or give a local folder with "
        "--model-args pretrained=FOLDER"
    )

    @classmethod
    def published(cls, folder: Path) -> SamplingDefaults:
        return SamplingDefaults(steps=50, guidance=4.0)

    @classmethod
    def published_size(cls, pretrained: str) -> tuple[dict[str, Any], int]:
        """The transformer's defaults are FLUX.2 [dev]'s; Mistral-Small-3.2-24B with its vision part, and the codec."""
        return {}, 24_011_361_280 + _CODEC

    def count_tokens(self, instruction: str) -> int:
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        talk = format_input(prompts=[instruction], system_message=self.pipe.system_message)
        return len(self.pipe.tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"][0])

    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        import torch

        guidance = torch.full_like(sigma, self.guidance)
        return self.forward(latents, sigma, condition, condition.text["tokens"], guidance)


class Flux2Klein(_Flux2):
    """FLUX.2 [klein] by Black Forest Labs, 4B and 9B, distilled or base: up to four images.

    The distilled checkpoints take 4 steps without guidance, the base ones 50 steps with classifier-free guidance 4
    against the empty instruction: the examples of the models' pages on the Hub. Args and Raises as for
    :class:`FlowPipeline`.
    """

    id = "flux2-klein"
    about = About(
        "FLUX.2 [klein] by Black Forest Labs, 4B and 9B, distilled or base",
        "open weights",
        "4B Apache-2.0, 9B FLUX Non-Commercial License",
        settings="distilled 4 steps; base 50 steps, classifier-free guidance 4",
        images=4,
    )
    pretrained = "black-forest-labs/FLUX.2-klein-4B"
    pipeline = "Flux2KleinPipeline"
    how_to_get = (
        "run `hf download black-forest-labs/FLUX.2-klein-4B` (about 16 GB; the 9B models ask to accept a licence on "
        "their page first), or give a local folder with --model-args pretrained=FOLDER"
    )

    @property
    def license(self) -> str:
        return "FLUX Non-Commercial License" if _nine(self.weights_name) else "Apache-2.0"

    @classmethod
    def published_size(cls, pretrained: str) -> tuple[dict[str, Any], int]:
        """With Qwen3-4B or Qwen3-8B, and the codec."""
        if _nine(pretrained):
            blocks, others = (8, 24, 32, 12288), 8_190_735_360
        else:
            blocks, others = (5, 20, 24, 7680), 4_022_468_096
        names = "num_layers", "num_single_layers", "num_attention_heads", "joint_attention_dim"
        return {**dict(zip(names, blocks, strict=True)), "guidance_embeds": False}, others + _CODEC

    @classmethod
    def evaluations_a_step(cls, folder: Path, guidance: float) -> int:
        return 2 if guidance > 1 and not _distilled(folder) else 1

    @classmethod
    def published(cls, folder: Path) -> SamplingDefaults:
        distilled = _distilled(folder)
        return SamplingDefaults(steps=4 if distilled else 50, guidance=1.0 if distilled else 4.0)

    def count_tokens(self, instruction: str) -> int:
        return count_klein_tokens(self.pipe.tokenizer, instruction)

    def encode(self, instructions: Sequence[str], length: int, images: Sequence[Sequence[Image]]) -> list[Text]:
        if self.evaluations == 1:
            return super().encode(instructions, length, images)
        *texts, negative = super().encode([*instructions, ""], length, images)
        return [{**text, "negative": negative["tokens"]} for text in texts]

    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        v = self.forward(latents, sigma, condition, condition.text["tokens"], None)
        if self.evaluations == 1:
            return v
        without = self.forward(latents, sigma, condition, condition.text["negative"], None)
        return without + self.guidance * (v - without)


def within_a_megapixel(size: tuple[int, int]) -> tuple[int, int]:
    """What the image processor of FLUX.2 makes of an image of ``size`` before it crops it to whole tokens."""
    width, height = size
    if width * height <= _LARGEST:
        return size
    scale = (_LARGEST / (width * height)) ** 0.5
    return int(width * scale), int(height * scale)


def count_klein_tokens(tokenizer: Any, instruction: str) -> int:
    """Of the instruction as [klein] is asked it: a message of a user."""
    talk = [{"role": "user", "content": instruction}]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    return len(tokenizer(text)["input_ids"])


def _distilled(folder: Path) -> bool:
    """What a checkpoint says of itself, or the name of one that is not here."""
    index = folder / "model_index.json"
    if index.is_file():
        return bool(json.loads(index.read_text()).get("is_distilled", False))
    return "base" not in folder.name


def _nine(name: str) -> bool:
    return "9b" in name.lower()
