"""The parts of tiny-kontext: the real classes of FLUX.1-Kontext, small enough for two CPU cores."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.models.resnet import ResnetBlock2D
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from mteval.benchmarks.shapes.edits import NUMBERS, plural
from mteval.benchmarks.shapes.world import BACKGROUNDS, COLORS, LETTERS, MATERIALS, SHAPES

LATENT_CHANNELS = 12
TEXT_WIDTH, POOLED_WIDTH = 64, 64
CLIP_LENGTH = 64
_VERBS = [
    "Add",
    "a",
    "an",
    "at",
    "the",
    "Put",
    "in",
    "Place",
    "Remove",
    "Delete",
    "Take",
    "away",
    "Replace",
    "with",
    "Swap",
    "for",
    "Turn",
    "into",
    "Make",
    "Paint",
    "Change",
    "color",
    "of",
    "to",
    "Give",
    "texture",
    "one",
    "Write",
    "on",
    "letter",
    "Move",
    "Shift",
    "Bring",
    "it",
    "There",
    "should",
    "be",
    "number",
    "background",
    "Use",
    "as",
    "top",
    "middle",
    "bottom",
    "left",
    "center",
    "right",
    "and",
]


def vocabulary() -> list[str]:
    """Every word of ShapesEdit's instructions at any level, in a fixed order."""
    plurals = [plural(shape) for shape in SHAPES]
    words = [*_VERBS, *SHAPES, *plurals, *COLORS, *MATERIALS, *LETTERS, *BACKGROUNDS, *NUMBERS.values()]
    return list(dict.fromkeys(words))


def t5_tokenizer(length: int) -> T5TokenizerFast:
    """Whole words, then single characters for everything else, with fixed ids: pad 0, eos 1, unk 2."""
    characters = "▁.,'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-:;!?\"()"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -4.0) for word in vocabulary()]
    pieces += [(character, -12.0) for character in characters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=length)


def clip_tokenizer() -> CLIPTokenizer:
    """Byte pairs learnt from the known words until each of them is one token."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = byte_pairs({word.lower() for word in vocabulary()})
    pieces = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(pair) for pair in merges)]
    vocab = {token: i for i, token in enumerate([*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_LENGTH)


def byte_pairs(words: Collection[str]) -> list[tuple[str, str]]:
    """The merges that byte-pair encoding learns from ``words``, the same at every call.

    tokenizers' own trainer breaks its ties by the order of a hash map, which no seed fixes.
    """
    spelled = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for pieces in spelled for pair in itertools.pairwise(pieces)):
        pair = max(counts, key=lambda found: (counts[found], found))
        merges.append(pair)
        for pieces in spelled:
            for k in range(len(pieces) - 2, -1, -1):
                if (pieces[k], *pieces[k + 1 : k + 2]) == pair:
                    pieces[k : k + 2] = ["".join(pair)]
    return merges


def codec(channels: tuple[int, ...], latent_channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    """An AutoencoderKL of scale 2 ** (len(channels) - 1); group norm keeps it from diverging."""
    blocks = len(channels)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=96,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    # Start as a well-conditioned linear pyramid: kernels that keep the variance, residual branches that add nothing
    # yet. With the default initialisation the signal fades along the way and the first thousand steps go into bringing
    # it back.
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            torch.nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            torch.nn.init.zeros_(module.conv2.weight)
    return vae


def clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=POOLED_WIDTH,
        intermediate_size=2 * POOLED_WIDTH,
        projection_dim=POOLED_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def t5_encoder(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=2 * TEXT_WIDTH,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def transformer(layers: int, single_layers: int, heads: int) -> FluxTransformer2DModel:
    """Width is 32 x heads; it must exceed the channels of a token, or the noise cannot pass through it."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=layers,
        num_single_layers=single_layers,
        attention_head_dim=32,
        num_attention_heads=heads,
        axes_dims_rope=(8, 12, 12),
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=True,
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX's own scheduler and settings."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def parameters(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
