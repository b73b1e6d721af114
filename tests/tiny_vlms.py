"""Vision-language models for tests: real classes with random weights, their processors, and a small chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny_pipelines import byte_tokenizer

END = "<|im_end|>"


def save_idefics3(folder: Path) -> Path:
    """A random Idefics3, which needs no torchvision: an image of 16 pixels a side is four tokens."""
    from transformers import (
        GenerationConfig,
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
    )

    torch.manual_seed(0)
    tokenizer = _tokenizer("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 16}, max_image_size={"longest_edge": 16}, do_image_splitting=False
    )
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=_template("<image>"))
    config = Idefics3Config(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "max_position_embeddings": 4096, **_SMALL},
        vision_config={"image_size": 16, "patch_size": 4, "hidden_size": 16, "intermediate_size": 16, **_ONE_LAYER},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    return _save(Idefics3ForConditionalGeneration(config), processor, folder, GenerationConfig)


def save_qwen2_5_vl(folder: Path) -> Path:
    """A random Qwen2.5-VL; its processor needs torchvision."""
    from transformers import (
        GenerationConfig,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    torch.manual_seed(0)
    special = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = _tokenizer(*special)
    number = dict(zip(special, tokenizer.convert_tokens_to_ids(list(special)), strict=True))
    template = _template("<|vision_start|><|image_pad|><|vision_end|>")
    images = Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56})
    processor = Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=template)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            **_SMALL,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        vision_start_token_id=number["<|vision_start|>"],
        vision_end_token_id=number["<|vision_end|>"],
        image_token_id=number["<|image_pad|>"],
        video_token_id=number["<|video_pad|>"],
    )
    return _save(Qwen2_5_VLForConditionalGeneration(config), processor, folder, GenerationConfig)


_ONE_LAYER = {"num_hidden_layers": 1, "num_attention_heads": 2}
_SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_key_value_heads": 1, **_ONE_LAYER}


def _tokenizer(*special: str) -> Any:
    tokenizer = byte_tokenizer(*special)
    tokenizer.chat_template = None
    tokenizer.eos_token = END
    return tokenizer


def _template(image: str) -> str:
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}"
        f"{{% if part['type'] == 'image' %}}{image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{END}\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def _save(model: Any, processor: Any, folder: Path, generation: Any) -> Path:
    """Weights wide apart, so that what is shown and asked makes a difference."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.5)
    end = processor.tokenizer.convert_tokens_to_ids(END)
    model.generation_config = generation(eos_token_id=end, pad_token_id=processor.tokenizer.pad_token_id)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
