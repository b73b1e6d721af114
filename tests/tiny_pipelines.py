"""Checkpoints for tests: the very classes of FLUX.1 Kontext with random weights, saved in the diffusers layout."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mteval.editors.base import EditRequest
from mttrain.pretrain import models
from mttrain.pretrain.export import export
from mttrain.pretrain.flow import Flow, FlowSettings
from mttrain.weights import AVERAGE, WeightSets

needs_vision = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: make test-vision")

SIZE = 64  # four tokens


def save_kontext(folder: Path) -> Path:
    """A random FLUX.1 Kontext of 64 pixels a side with its ``mteval.json``."""
    torch.manual_seed(0)
    settings = FlowSettings(single_layers=1, heads=2)
    flow = Flow(settings)
    vae = models.codec((4, 4, 4, 4, 8))
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.7)
    weights = WeightSets(dict(flow.named_parameters()))
    weights.keep(AVERAGE)
    export(folder, vae, flow, weights, settings, SIZE)
    return folder


def picture(seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """A smooth random image, (width, height) = ``size``."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def request(seed: int, instruction: str = "Add a red circle.", image: Image.Image | None = None) -> EditRequest:
    return EditRequest(f"s{seed}", 1, image or picture(seed), instruction, seed=seed)


def difference(a: Image.Image | None, b: Image.Image | None) -> int:
    """The largest difference of two images in 0..255."""
    assert a is not None and b is not None and a.size == b.size
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def wide(network: Any) -> Any:
    """The same network in evaluation mode, its weights so far apart that text, image and guidance make a difference."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.3)
    return network.eval()


def byte_tokenizer(*extra: str) -> Any:
    """Qwen2's tokenizer class with a token a byte, its special tokens, and a chat template of the usual form."""
    from transformers import Qwen2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = [*bytes_to_unicode().values()]
    tokenizer = Qwen2TokenizerFast(vocab={symbol: k for k, symbol in enumerate(symbols)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *extra]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def flux2_parts(text_width: int, guided: bool) -> dict[str, Any]:
    """Transformer, codec and scheduler of FLUX.2, tiny and random; a token is 16 pixels a side."""
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

    channels = (4, 4, 4, 8)
    vae = AutoencoderKLFlux2(
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * text_width,
        axes_dims_rope=(4, 4, 4, 4),
        timestep_guidance_channels=16,
        guidance_embeds=guided,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    return {"vae": vae.eval(), "transformer": transformer.eval(), "scheduler": scheduler}


def save_klein(folder: Path, distilled: bool = False, kv: bool = False) -> Path:
    """A random FLUX.2 [klein]; its text encoder has 27 layers, because the pipeline reads the ninth, 18th and 27th.

    Args:
        kv: of the pipeline that keeps keys and values.
    """
    from diffusers import Flux2KleinKVPipeline, Flux2KleinPipeline
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=27,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    pipe = (Flux2KleinKVPipeline if kv else Flux2KleinPipeline)(
        text_encoder=Qwen3ForCausalLM(config).eval(),
        tokenizer=tokenizer,
        is_distilled=distilled,
        **flux2_parts(8, guided=False),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_flux2_dev(folder: Path) -> Path:
    """A random FLUX.2 [dev], whose processor needs torchvision; the pipeline reads the 10th, 20th and 30th layer."""
    from diffusers import Flux2Pipeline
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PixtralImageProcessor, PixtralProcessor

    torch.manual_seed(0)
    tokenizer = byte_tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
    )
    processor = PixtralProcessor(PixtralImageProcessor(), tokenizer, chat_template=template)
    heads = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "head_dim": 4}
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 30,
            "num_key_value_heads": 1,
            **heads,
        },
        vision_config={"model_type": "pixtral", "num_hidden_layers": 1, "image_size": 32, "patch_size": 16, **heads},
    )
    pipe = Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(config).eval(),
        tokenizer=processor,
        **flux2_parts(8, guided=True),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def qwen2_5_vl() -> dict[str, Any]:
    """Tokenizer, processor and language model of the editors that read with Qwen2.5-VL; it needs torchvision."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer, numbers = _seeing_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        **numbers,
    )
    return {
        "tokenizer": tokenizer,
        "processor": Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor()),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(config).eval(),
    }


def _seeing_tokenizer() -> tuple[Any, dict[str, int]]:
    """With the special tokens of Qwen's models that see, and their numbers by the names of the configurations."""
    special = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = byte_tokenizer(*special)
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return tokenizer, dict(zip(names, tokenizer.convert_tokens_to_ids(list(special)), strict=True))


def save_qwen_edit(folder: Path, plus: bool = False) -> Path:
    """A random Qwen-Image-Edit, or one of its Plus line; its processor needs torchvision."""
    import diffusers

    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.0, 0.5, 2.0, 1.5],
    )
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
        zero_cond_t=plus,
    )
    pipeline = diffusers.QwenImageEditPlusPipeline if plus else diffusers.QwenImageEditPipeline
    pipe = pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
        ),
        vae=vae.eval(),
        transformer=transformer.eval(),
        **qwen2_5_vl(),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_longcat(folder: Path) -> Path:
    """A random LongCat-Image-Edit; its processor needs torchvision. A token is 16 pixels a side, as in the real one."""
    import diffusers

    torch.manual_seed(0)
    reader = qwen2_5_vl()
    vae = models.codec((4, 4, 4, 4), latent_channels=16)  # the pipeline itself says 16
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.7)
    pipe = diffusers.LongCatImageEditPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=vae.eval(),
        text_encoder=reader["text_encoder"],
        tokenizer=reader["tokenizer"],
        text_processor=reader["processor"],
        transformer=wide(
            diffusers.LongCatImageTransformer2DModel(
                in_channels=64,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                pooled_projection_dim=16,
                axes_dims_rope=[4, 6, 6],
            )
        ),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_joy(folder: Path) -> Path:
    """A random JoyAI-Image-Edit, read by Qwen3-VL; its processor needs torchvision."""
    import diffusers
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer, numbers = _seeing_tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 16}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True},
            **small,
        },
        vision_config={
            "depth": 1,
            "num_heads": 2,
            "out_hidden_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
            **small,
        },
        **numbers,
    )
    images = Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96})
    pipe = diffusers.JoyImageEditPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=4.0),
        vae=wide(
            diffusers.AutoencoderKLWan(
                base_dim=4,
                z_dim=16,
                dim_mult=[1, 1, 1, 1],
                num_res_blocks=1,
                temperal_downsample=[False, True, True],
            )
        ),
        text_encoder=wide(Qwen3VLForConditionalGeneration(config)),
        tokenizer=tokenizer,
        transformer=wide(
            diffusers.JoyImageEditTransformer3DModel(
                hidden_size=32, num_attention_heads=2, text_dim=16, num_layers=1, rope_dim_list=[4, 6, 6]
            )
        ),
        processor=Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor()),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_omnigen(folder: Path) -> Path:
    """A random OmniGen, whose processor needs torchvision; a token is 16 pixels a side, which that one counts on."""
    from diffusers import FlowMatchEulerDiscreteScheduler, OmniGenPipeline, OmniGenTransformer2DModel
    from transformers import LlamaTokenizer

    torch.manual_seed(0)
    letters = [*map(chr, range(33, 127)), "\u2581", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {symbol: k for k, symbol in enumerate(dict.fromkeys(["<unk>", "<s>", "</s>", *letters]))}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=[], add_bos_token=True, model_max_length=4096)
    pipe = OmniGenPipeline(
        transformer=wide(
            OmniGenTransformer2DModel(
                in_channels=4,
                hidden_size=32,
                num_attention_heads=2,
                num_key_value_heads=2,
                intermediate_size=32,
                num_layers=2,
                pad_token_id=0,
                vocab_size=len(tokenizer),
                rope_scaling={"long_factor": [1.0] * 8, "short_factor": [1.0] * 8},
                pos_embed_max_size=64,
                time_step_dim=16,
            )
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1),
        vae=models.codec((4, 4, 4, 4), latent_channels=4).eval(),
        tokenizer=tokenizer,
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_instruct_pix2pix(folder: Path) -> Path:
    """A random InstructPix2Pix of Stable Diffusion's classes; a latent is 8 pixels a side, as in the real one."""
    from diffusers import (
        EulerAncestralDiscreteScheduler,
        StableDiffusionInstructPix2PixPipeline,
        UNet2DConditionModel,
    )

    torch.manual_seed(0)
    tokenizer = models.clip_tokenizer()
    encoder = models.clip_encoder(tokenizer).eval()
    pipe = StableDiffusionInstructPix2PixPipeline(
        vae=models.codec((4, 4, 4, 4), latent_channels=4).eval(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=wide(
            UNet2DConditionModel(
                sample_size=32,
                in_channels=8,
                block_out_channels=(4, 8),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                layers_per_block=1,
                norm_num_groups=2,
                cross_attention_dim=encoder.config.hidden_size,
                attention_head_dim=2,
            )
        ),
        scheduler=EulerAncestralDiscreteScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder
