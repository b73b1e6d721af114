"""OWLv2: every name is a query of its own, and every patch of the image says what it is and how far it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mteval import devices
from mteval.perception.base import Detection
from mteval.perception.prompts import detections, inside, spoken
from mteval.pretrained import fingerprint, load_model, load_processor, locate_model

if TYPE_CHECKING:
    from PIL.Image import Image

_TEMPLATE = "a photo of a {}"
"""Of the model's page on the Hub."""

_HOW_TO_GET = (
    "run `hf download google/owlv2-base-patch16-ensemble` (0.6 GB, Apache-2.0), or give a local folder with "
    "pretrained=FOLDER"
)


class Owlv2:
    """Every patch whose likeliest name is sure enough is one detection; overlapping ones are not merged.

    The image is padded below and to the right to a square of its longer side, then resized; boxes are told in shares of
    the image without the padding, and what lies in the padding is left out.

    Args: as for :class:`mteval.perception.grounding_dino.GroundingDino`. Its scores are lower: a threshold of 0.1 to
        0.2 here does what 0.3 does there.

    Raises:
        UsageError: no weights, or those of another model.
    """

    def __init__(
        self,
        pretrained: str = "google/owlv2-base-patch16-ensemble",
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        devices.check(device, dtype)
        self._folder = locate_model(pretrained, revision, ("owlv2",), _HOW_TO_GET)
        self._device, self._dtype = device, dtype
        self.revision = f"{fingerprint(self._folder)}-{dtype}"

    def detect(self, image: Image, names: Sequence[str], threshold: float) -> list[Detection]:
        """Raises:
        ValueError: a name that is empty, or longer than the text encoder reads (16 tokens with "a photo of a").
        """
        import torch

        asked = spoken(names)
        if not asked:
            return []
        texts = list(asked)
        room = self._model.config.text_config.max_position_embeddings
        queries = [_TEMPLATE.format(text) for text in texts]
        for query in queries:
            if len(self._processor.tokenizer(query)["input_ids"]) > room:
                raise ValueError(f"'{query}' is longer than the {room} tokens that the detector reads")
        inputs = self._processor(images=image, text=[queries], return_tensors="pt").to(self._model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.inference_mode():
            output = self._model(**inputs)
        best = output.logits[0].float().cpu().max(1)  # [patches, names]
        scores = best.values.sigmoid()
        side = max(image.size)
        x, y, width, height = output.pred_boxes[0].float().cpu().unbind(1)
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
        corners *= side / torch.tensor([*image.size, *image.size])
        found = [
            (texts[int(best.indices[k])], inside(corners[k].tolist()), float(scores[k]))
            for k in (scores >= threshold).nonzero()[:, 0].tolist()
        ]
        return detections(found, asked)

    @cached_property
    def _model(self) -> Any:
        return load_model("Owlv2ForObjectDetection", self._folder, self._device, self._dtype)

    @cached_property
    def _processor(self) -> Any:
        return load_processor("Owlv2Processor", self._folder)
