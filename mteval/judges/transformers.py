"""A judge on this machine: any model of transformers that reads images and text and answers in text."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mteval import devices
from mteval.errors import UsageError
from mteval.judges.base import Answer, JudgeInfo, Question
from mteval.judges.cache import key_of
from mteval.pretrained import fingerprint, load_model, load_processor, locate_model
from mteval.seeds import seed_of
from mteval.services import check_extra

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_LIKELIEST = 20
"""Tokens whose log-probabilities are told beside the choices: as many as services tell."""
_HOW_TO_GET = (
    "run `hf download Qwen/Qwen2-VL-7B-Instruct` (17 GB, Apache-2.0, the judge of EdiVal-Bench's published numbers) or "
    "another, or give a local folder with pretrained=FOLDER"
)


class TransformersJudge:
    """Qwen2-VL, which EdiVal-Bench's published numbers use, Qwen2.5-VL, Qwen3-VL, Gemma 3, Idefics3 and their like.

    A reply is a function of the question alone, up to the rounding that the length of a batch brings: at temperature 0
    it is the likeliest token at every place, otherwise it is drawn with a generator of its own, whose seed the
    question and its vote give. The checkpoint's own sampling settings (top-k, penalties) are left out.

    Args:
        pretrained: a folder, or an id on the Hugging Face Hub. revision: of it there.
        device, dtype: see :mod:`mteval.devices`.
        batch_size: questions a call.
        max_pixels: of an image's area; a larger one is made smaller before the model's own processor sees it.
        thinking: what a chat template is told that can switch the model's own reasoning on and off.

    Raises:
        UsageError: no checkpoint, or one that reads no images or has no chat template, or a library is missing.
    """

    about: ClassVar[str] = "a model on this machine: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Gemma 3, Idefics3 and their like"
    arguments: ClassVar[str] = "pretrained=OWNER/NAME"

    def __init__(
        self,
        pretrained: str | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 1,
        max_pixels: int | None = None,
        thinking: bool = False,
    ) -> None:
        devices.check(device, dtype)
        for name, value in (("batch_size", batch_size), ("max_pixels", max_pixels)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be 1 or more, not {value}")
        if pretrained is None:
            raise UsageError(f"judge 'transformers' needs pretrained=: {_HOW_TO_GET}")
        self._folder = locate_model(pretrained, revision, (), _HOW_TO_GET)
        self._processor = _processor(self._folder, pretrained)
        self._device = devices.pick_device(device)
        self._dtype = str(devices.pick_dtype(dtype, self._device)).removeprefix("torch.")
        self.max_pixels, self.thinking = max_pixels, thinking
        settings = [f"max_pixels={max_pixels}"] * (max_pixels is not None) + ["thinking"] * thinking
        pinned = fingerprint(self._folder, *sorted(self._folder.glob("*.jinja")))
        revision = "-".join([pinned, self._dtype, *settings])
        self.info = JudgeInfo("transformers", revision, gives_probabilities=True, batch_size=batch_size)

    @cached_property
    def model(self) -> Any:
        """On its device.

        Raises:
            UsageError: weights are missing.
        """
        from transformers import GenerationConfig

        model = load_model("AutoModelForImageTextToText", self._folder, self._device, self._dtype)
        tokenizer, own = self._processor.tokenizer, model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
        pad = max(ends) if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        model.generation_config = GenerationConfig(eos_token_id=sorted(ends), pad_token_id=pad, do_sample=False)
        return model

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """What goes wrong, for want of memory for example, is raised: the model has said nothing then.

        What is asked for alike is asked in one batch.
        """
        alike: dict[tuple[bool, bool, int], list[int]] = {}
        for place, question in enumerate(questions):
            shows = any(not isinstance(part, str) for part in question.parts)
            alike.setdefault((shows, bool(question.choices), question.tokens), []).append(place)
        answers: dict[int, Answer] = {}
        for places in alike.values():
            answers.update(zip(places, self._ask([questions[place] for place in places]), strict=True))
        return [answers[place] for place in range(len(questions))]

    def _ask(self, questions: Sequence[Question]) -> list[Answer]:
        import torch

        began = time.perf_counter()
        model = self.model
        inputs = self._inputs(questions).to(model.device, model.dtype)
        choosing = bool(questions[0].choices)
        with torch.inference_mode():
            made = model.generate(
                **inputs,
                max_new_tokens=1 if choosing else questions[0].tokens,
                logits_processor=[] if choosing else [_Draw([self._generator(question) for question in questions])],
                output_logits=choosing,
                return_dict_in_generate=True,
            )
        if choosing:
            logarithms = made.logits[0].float().log_softmax(-1).cpu()
            answers = [self._chosen(row, question) for row, question in zip(logarithms, questions, strict=True)]
        else:
            replies = made.sequences[:, inputs["input_ids"].shape[1] :].tolist()
            answers = [self._said(tokens) for tokens in replies]
        latency = (time.perf_counter() - began) / len(questions)
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [
            replace(answer, tokens_in=length, latency=latency) for answer, length in zip(answers, lengths, strict=True)
        ]

    def _inputs(self, questions: Sequence[Question]) -> Any:
        """What the model reads: the messages in the words of its chat template, padded on the left."""
        switch = {"enable_thinking": self.thinking} if "enable_thinking" in str(self._processor.chat_template) else {}
        return self._processor.apply_chat_template(
            [self._messages(question) for question in questions],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
            **switch,
        )

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        for part in question.parts:
            if not isinstance(part, str):
                content.append({"type": "image", "image": self._shown(part)})
            elif content and content[-1]["type"] == "text":  # a template sets neighbours without a space
                content[-1]["text"] += f"\n{part}"
            else:
                content.append({"type": "text", "text": part})
        roles = ("assistant", "user")
        later = [
            {"role": roles[k % 2], "content": [{"type": "text", "text": text}]}
            for k, text in enumerate(question.replied)
        ]
        return [{"role": "user", "content": content}, *later]

    def _shown(self, image: Image) -> Image:
        from PIL import Image as Pillow

        if self.max_pixels is None or image.width * image.height <= self.max_pixels:
            return image
        scale = math.sqrt(self.max_pixels / (image.width * image.height))
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        return image.resize(size, Pillow.Resampling.LANCZOS)

    def _generator(self, question: Question) -> tuple[float, torch.Generator]:
        """Temperature, and the source of what is drawn."""
        import torch

        seed = seed_of("judge", key_of(self.info, question))
        return question.temperature, torch.Generator(self.model.device).manual_seed(seed)

    def _said(self, tokens: Sequence[int]) -> Answer:
        """A reply up to its end; without one it is truncated."""
        ends = self.model.generation_config.eos_token_id
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        said = tokens if end is None else tokens[:end]
        text = self._processor.tokenizer.decode(said, skip_special_tokens=True)
        return Answer(text, truncated=end is None, tokens_out=len(said))

    def _chosen(self, logarithms: torch.Tensor, question: Question) -> Answer:
        """The likeliest token, and what the choices and the likeliest ones have; tokens that read alike are one.

        Args:
            logarithms: [vocabulary], log-probabilities.
        """
        tokenizer = self._processor.tokenizer
        likeliest = logarithms.topk(min(_LIKELIEST, len(logarithms))).indices.tolist()
        wanted = dict.fromkeys(likeliest)
        for choice in question.choices:
            for word in (choice, f" {choice}"):
                spelt = tokenizer.encode(word, add_special_tokens=False)
                if len(spelt) == 1:
                    wanted[spelt[0]] = None
        told: dict[str, float] = {}
        for token in wanted:
            text = tokenizer.decode([token])
            told[text] = float(np.logaddexp(told.get(text, -math.inf), float(logarithms[token])))
        ranked = dict(sorted(told.items(), key=lambda item: -item[1]))
        return Answer(tokenizer.decode(likeliest[:1]), log_probabilities=ranked, tokens_out=1)


class _Draw:
    """Makes the likeliest token the one that is drawn from softmax(logits / temperature), a generator a question.

    The largest of logits / temperature + Gumbel noise is such a draw (Gumbel 1954), so the model's own loop stays the
    greedy one, and what is in a batch does not matter.
    """

    def __init__(self, draws: Sequence[tuple[float, torch.Generator]]) -> None:
        self.draws = draws

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores: [questions, vocabulary]."""
        import torch

        rows = []
        for row, (temperature, generator) in zip(scores, self.draws, strict=True):
            if temperature > 0:
                waited = torch.empty_like(row, dtype=torch.float32).exponential_(generator=generator)
                # A draw is exactly 0 once in 2^24, which among 150,000 tokens is no rare event.
                row = row / temperature - waited.clamp(min=2**-25).log()
            rows.append(row)
        return torch.stack(rows)


def _processor(folder: Path, name: str) -> Any:
    """What makes inputs of messages.

    Raises:
        UsageError: the checkpoint has none that would do.
    """
    try:
        processor = load_processor("AutoProcessor", folder)
    except (AttributeError, UsageError) as error:  # what transformers raises where it misses torchvision
        if "video" in str(error).lower():
            check_extra("vision", f"{name} as a judge")
        raise
    if not hasattr(processor, "image_processor"):
        raise UsageError(f"{name} reads no images, so it cannot judge any: {_HOW_TO_GET}")
    if not getattr(processor, "chat_template", None):
        raise UsageError(
            f"{name} has no chat template, so it cannot be asked: choose a model that follows instructions"
        )
    return processor
