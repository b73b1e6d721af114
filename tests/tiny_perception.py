"""Detectors and encoders for tests: the very classes of transformers, tiny and random, saved as on the Hub."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def save_grounding_dino(folder: Path, text_length: int = 64) -> Path:
    """A random Grounding DINO with BERT's special tokens at their places, a token a letter, ``text_length`` a text."""
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessorPil,
        SwinConfig,
    )

    torch.manual_seed(0)
    letters = [*string.ascii_lowercase, *string.digits]
    places = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    places |= {letter: 200 + k for k, letter in enumerate(letters)}
    places |= {f"##{letter}": 300 + k for k, letter in enumerate(letters)}
    taken = {place: token for token, place in places.items()}
    vocabulary = {taken.get(k, f"[unused{k}]"): k for k in range(1030)}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=512)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=1030,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=512,
        ),
        num_queries=12,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=32,
        max_text_len=text_length,
    )
    model = _spread(GroundingDinoForObjectDetection(config).eval())
    model.model.decoder.layer_norm.weight.data.mul_(0.1)  # scores all over [0, 1], not all at 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 80, "longest_edge": 120}
    _write(folder, GroundingDinoImageProcessorPil(size=size), "GroundingDinoProcessor")
    return folder


def save_owlv2(folder: Path) -> Path:
    """A random OWLv2 of 64 pixels a side, patches of 16, that reads 24 tokens, one a letter."""
    from transformers import CLIPTokenizer, Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(0)
    symbols = ["!", *(symbol for symbol in bytes_to_unicode().values() if symbol != "!")]
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    merges = [("p", "h"), ("o", "t"), ("ph", "ot"), ("phot", "o</w>"), ("o", "f</w>")]
    words += ["".join(pair) for pair in merges]
    vocabulary = {word: k for k, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=24, pad_token="!")
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    text = {"vocab_size": len(words), "max_position_embeddings": 24, "bos_token_id": start, "eos_token_id": end}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config={**small, **text, "pad_token_id": 0},
        vision_config={**small, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    _spread(Owlv2ForObjectDetection(config).eval()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write(folder, Owlv2ImageProcessorPil(size={"height": 64, "width": 64}), "Owlv2Processor")
    return folder


def save_dino(folder: Path, kind: str, registers: int = 0) -> Path:
    """A random ``dinov2``, ``dinov2_with_registers`` or ``dinov3_vit`` of patches of 14 or 16 pixels, 16 channels."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
        DINOv3ViTConfig,
        DINOv3ViTModel,
    )

    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model: Any
    if kind == "dinov2":
        model = Dinov2Model(Dinov2Config(**small, patch_size=14, image_size=70))
    elif kind == "dinov2_with_registers":
        settings = Dinov2WithRegistersConfig(**small, patch_size=14, image_size=70, num_register_tokens=registers)
        model = Dinov2WithRegistersModel(settings)
    else:
        config = DINOv3ViTConfig(
            **small, intermediate_size=32, patch_size=16, image_size=64, num_register_tokens=registers
        )
        model = DINOv3ViTModel(config)
    _spread(model.eval()).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return folder


def _spread(model: Any) -> Any:
    """As drawn, what is put out hardly depends on what is put in."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.12)
    return model


def _write(folder: Path, images: Any, cls: str) -> None:
    """The processor's files in the layout of the Hub, which is older than the one that transformers writes."""
    told = {**images.to_dict(), "processor_class": cls}
    (folder / "preprocessor_config.json").write_text(json.dumps(told, default=str))
