"""Grounding DINO: the names are one text, and every box is told by the words of it that it matches.

The published numbers of EdiVal-Bench are of SwinT-OGC, which is the checkpoint ``grounding-dino-tiny``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mteval import devices
from mteval.perception.base import Box, Detection
from mteval.perception.prompts import detections, inside, spoken
from mteval.pretrained import fingerprint, load_model, load_processor, locate_model

if TYPE_CHECKING:
    from PIL.Image import Image

_HOW_TO_GET = (
    "run `hf download IDEA-Research/grounding-dino-tiny` (0.7 GB, Apache-2.0), or give a local folder with "
    "pretrained=FOLDER"
)


class GroundingDino:
    """Every box is one detection, of the name whose words it matches best.

    A name's words are its tokens in the text "name . name ." and the full stop that closes it: names that share a word
    stand at different places, so they are told apart. The score is the largest probability over all tokens, as in the
    model's own post-processing with box and text threshold alike.

    Args:
        pretrained: a folder, or an id on the Hugging Face Hub. revision: of it there.
        device, dtype: see :mod:`mteval.devices`. Scores are compared with thresholds, so float32 everywhere.

    Raises:
        UsageError: no weights, or those of another model.
    """

    def __init__(
        self,
        pretrained: str = "IDEA-Research/grounding-dino-tiny",
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        devices.check(device, dtype)
        self._folder = locate_model(pretrained, revision, ("grounding-dino",), _HOW_TO_GET)
        self._device, self._dtype = device, dtype
        self.revision = f"{fingerprint(self._folder)}-{dtype}"

    def detect(self, image: Image, names: Sequence[str], threshold: float) -> list[Detection]:
        """More names than the text holds (256 tokens) are asked for in several texts.

        Raises:
            ValueError: a name that is empty, or longer than a whole text.
        """
        asked = spoken(names)
        found = [one for texts in self._split(list(asked)) for one in self._look(image, texts, threshold)]
        return detections(found, asked)

    @cached_property
    def _model(self) -> Any:
        return load_model("GroundingDinoForObjectDetection", self._folder, self._device, self._dtype)

    @cached_property
    def _processor(self) -> Any:
        return load_processor("GroundingDinoProcessor", self._folder)

    def _split(self, texts: list[str]) -> Iterator[list[str]]:
        room = self._model.config.max_text_len if texts else 0
        group: list[str] = []
        for text in texts:
            if self._length([text]) > room:
                raise ValueError(f"'{text}' is longer than the {room} tokens that the detector reads")
            if group and self._length([*group, text]) > room:
                yield group
                group = []
            group.append(text)
        if group:
            yield group

    def _length(self, texts: Sequence[str]) -> int:
        return len(self._processor.tokenizer(_joined(texts))["input_ids"])

    def _look(self, image: Image, texts: Sequence[str], threshold: float) -> list[tuple[str, Box, float]]:
        import torch

        inputs = self._processor(images=image, text=_joined(texts), return_tensors="pt").to(self._model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.inference_mode():
            output = self._model(**inputs)
        chances = output.logits[0].float().sigmoid().cpu()  # [boxes, places in the text]
        tokens = inputs["input_ids"][0].cpu()
        stops = (tokens == self._processor.tokenizer.convert_tokens_to_ids(".")).int()
        name_of = stops.cumsum(0) - stops  # the name that a token belongs to: how many stops are before it
        inner = torch.ones_like(stops, dtype=torch.bool)
        inner[[0, -1]] = False  # [CLS] and [SEP] are of no name
        by_name = [chances[:, : len(tokens)][:, inner & (name_of == k)].amax(1) for k in range(len(texts))]
        best = torch.stack(by_name).argmax(0)
        scores = chances.amax(1)
        x, y, width, height = output.pred_boxes[0].float().cpu().unbind(1)
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
        return [
            (texts[int(best[k])], inside(corners[k].tolist()), float(scores[k]))
            for k in (scores >= threshold).nonzero()[:, 0].tolist()
        ]


def _joined(texts: Sequence[str]) -> str:
    return " . ".join(texts) + " ."
