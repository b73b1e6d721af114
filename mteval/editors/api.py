"""ApiEditor: what the editors behind an API share, from the key to the size of the image that comes back.

The key is read from the environment when a call is made, and nowhere kept: no argument, log, record or report holds it,
and it is cut out of whatever a server says. Retries, pace and budget are the run's (rollout.py, pace.py); the client
libraries are told not to retry.
"""

from __future__ import annotations

import io
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mteval.editors.base import About, BadOutput, EditError, EditorInfo, EditRequest, EditResult, Transient
from mteval.errors import UsageError
from mteval.services import check_key, masked, without_key

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]

_SAME_ASPECT = 0.05
"""Relative difference up to which an image has the aspect ratio that was asked for: services round their sizes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered.

    Attributes:
        content: the bytes of an image file; None where there was none, and ``error`` says why.
        cost: US dollars, also where there is no image.
        dialogue: what a later request of this conversation goes on from, on the service's side.
    """

    content: bytes | None
    error: EditError | None = None
    cost: float = 0.0
    dialogue: str | None = None

    @classmethod
    def read(cls, content: Callable[[], bytes], cost: float, dialogue: str | None = None) -> Reply:
        """What ``content`` gives or raises; it was paid for either way."""
        try:
            return cls(content(), cost=cost, dialogue=dialogue)
        except EditError as error:
            return cls(None, error, cost, dialogue)


class ApiEditor(ABC):
    """One call of a service an edit.

    An image is resized to a size that the service makes, and what it makes is resized back to the size that came in
    (``resolution`` = ``keep``) or left as it is (``model``).

    Args:
        sizes: (width, height) that the service makes; the nearest in aspect ratio is asked for.
        key_variable: the environment variable of the key.
        cost_per_image: US dollars, for ``--max-cost`` and the estimate of ``--dry-run``.

    Raises:
        UsageError: the client library or the key is missing, before anything is asked.
    """

    about: ClassVar[About]

    def __init__(
        self, info: EditorInfo, sizes: Sequence[Size], resolution: str, key_variable: str, timeout: float
    ) -> None:
        self.about.check_needs(info.id)
        if resolution not in ("keep", "model"):
            raise UsageError(f"resolution must be keep or model, not '{resolution}'")
        check_key(info.id, key_variable)
        if timeout <= 0:
            raise UsageError(f"timeout is in seconds, above 0, not {timeout}")
        self.info, self.sizes, self.key_variable, self.timeout = info, sizes, key_variable, timeout
        self._keeps = resolution == "keep"

    @property
    def key(self) -> str:
        return os.environ.get(self.key_variable, "")

    @abstractmethod
    def ask(self, request: EditRequest, images: Sequence[Image], size: Size) -> Reply:
        """Make one call.

        Args:
            images: what is shown, at ``size``; the one to edit last.

        Raises:
            EditError: the service gave no answer to pay for.
        """

    def working_size(self, size: Size) -> Size:
        """The size that is asked for."""
        if size in self.sizes:
            return size
        ratio = size[0] / size[1]
        return min(self.sizes, key=lambda made: max(ratio / (made[0] / made[1]), made[0] / made[1] / ratio))

    def output_size(self, size: Size) -> Size:
        return size if self._keeps else self.working_size(size)

    def accepts(self, instruction: str) -> bool:
        return True

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One call each, one after the other: a run asks side by side by calling this from several threads."""
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> EditResult:
        began = time.perf_counter()
        size = self.working_size(request.image.size)
        shown = [resized(image, size) for image in (*request.context, request.image)]
        reply, image = Reply(None), None
        try:
            reply = self.ask(request, shown, size)
            if reply.content is not None:
                image = self._taken(reply.content, size, self.output_size(request.image.size))
            error = reply.error
        except EditError as caught:
            error = caught
        return EditResult(
            image,
            without_key(error, self.key) if error else None,
            latency=time.perf_counter() - began,
            cost=reply.cost,
            dialogue=reply.dialogue and masked(reply.dialogue, self.key),
        )

    def _taken(self, content: bytes, asked: Size, wanted: Size) -> Image:
        """The image in ``content``, at the ``wanted`` size.

        Raises:
            Transient: what arrived is no image file. BadOutput: it is one of another shape.
        """
        from PIL import Image as Pillow

        try:
            image = Pillow.open(io.BytesIO(content))
            image.load()
        except Exception as error:  # a decoder raises whatever it stumbles over
            raise Transient(f"what arrived is not an image ({type(error).__name__}: {error})") from error
        if not same_aspect(image.size, asked):
            raise BadOutput(f"an image of {image.width}x{image.height} pixels, not {asked[0]}x{asked[1]}")
        return resized(image.convert("RGB"), wanted)


def same_aspect(one: Size, other: Size) -> bool:
    """Whether two sizes differ by rounding only."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= _SAME_ASPECT


def resized(image: Image, size: Size) -> Image:
    from PIL import Image as Pillow

    return image if image.size == size else image.resize(size, Pillow.Resampling.LANCZOS)


def png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def read_sizes(text: str | Sequence[str]) -> tuple[Size, ...]:
    """``1024x1024,1536x1024``, or a list of such sizes, as pairs.

    Raises:
        UsageError: it is not written like that.
    """
    text = text if isinstance(text, str) else ",".join(text)
    found = [re.fullmatch(r"\s*(\d+)x(\d+)\s*", part) for part in text.split(",")]
    sizes = tuple((int(match[1]), int(match[2])) for match in found if match)
    if len(sizes) != len(found) or not all(side > 0 for size in sizes for side in size):
        raise UsageError(f"sizes must be like [1024x1024,1536x1024], not '{text}'")
    return sizes
