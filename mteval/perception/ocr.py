"""Text in images, read by RapidOCR: PP-OCRv6 in ONNX, its models in the wheel, so nothing is ever fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ImageOps

from mteval.devices import threads
from mteval.errors import UsageError
from mteval.perception.base import Text
from mteval.perception.prompts import inside
from mteval.pretrained import fingerprint

if TYPE_CHECKING:
    from PIL.Image import Image

_NARROWEST = 4
"""Height of an image in widths; the engine pads wide ones to 4 widths in heights, and narrow ones it does not."""


class RapidOcr:
    """Lines of at least 0.5 (RapidOCR's own), on the CPU; a line that stands askew has the box around it.

    Raises:
        UsageError: RapidOCR or onnxruntime is not installed.
    """

    def __init__(self) -> None:
        package = find_spec("rapidocr")
        if package is None or package.origin is None or find_spec("onnxruntime") is None:
            raise UsageError("rapidocr needs rapidocr and onnxruntime: pip install 'mteval[ocr]'")
        models = sorted((Path(package.origin).parent / "models").glob("*.onnx"))
        self.revision = f"{version('rapidocr')}-{fingerprint(*models)}"

    def read(self, image: Image) -> list[Text]:
        """Raises:
        RuntimeError: lines were found, but they could not be read.
        """
        from rapidocr.utils.output import RapidOCROutput

        padded = _not_too_narrow(image)
        found = self._engine(padded)
        if not isinstance(found, RapidOCROutput):  # where its recogniser fails, the engine gives the places alone
            raise RuntimeError(f"rapidocr found {len(found)} lines and read none of them")
        if found.txts is None:
            return []
        size = np.array(image.size)
        lines = []
        for text, corners, score in zip(found.txts, found.boxes, found.scores, strict=True):
            shares = np.asarray(corners) / size  # [4, (x, y)]
            lines.append(Text(text, inside([*shares.min(0), *shares.max(0)]), float(score)))
        return in_reading_order(lines)

    @cached_property
    def _engine(self) -> Any:
        from rapidocr import RapidOCR

        quiet = {"Global.log_level": "critical"}
        return RapidOCR(params={**quiet, "EngineConfig.onnxruntime.intra_op_num_threads": threads()})


def _not_too_narrow(image: Image) -> Image:
    """With black to the right of a strip: the engine scales the shorter side up, whatever becomes of the longer one."""
    if image.height <= _NARROWEST * image.width:
        return image
    return ImageOps.pad(image, (math.ceil(image.height / _NARROWEST), image.height), centering=(0, 0))


def in_reading_order(lines: Sequence[Text]) -> list[Text]:
    """From top to bottom, then from left to right; what starts above the middle of a row's first line is in its row."""
    rows: list[list[Text]] = []
    for line in sorted(lines, key=lambda line: line.box.center[1]):
        if rows and line.box.top < rows[-1][0].box.center[1]:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box.left)]
