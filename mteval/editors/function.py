"""A plain function as an editor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mteval.editors.api import resized, same_aspect
from mteval.editors.base import BadOutput, EditError, EditorInfo, EditRequest, EditResult

if TYPE_CHECKING:
    from PIL.Image import Image

Function = Callable[["Image", str, int], "Image"]
"""(image, instruction, seed) -> image."""


def editor(revision: str, **info: Any) -> Callable[[Function], type[Any]]:
    """Make an editor of a function: a class, so ``--model module:name`` runs it, and ``mteval.evaluate(name())``.

    An image of another size but the same shape is resized back. What the function raises fails that turn alone; an
    :class:`EditError` says how.

    Args:
        revision: of what the function does; a run is not gone on with by another one.
        info: further fields of :class:`EditorInfo`, for example ``seedable=False``.

    Example::

        @editor(revision="1")
        def inverted(image, instruction, seed):
            return ImageOps.invert(image)
    """

    def make(function: Function) -> type[Any]:
        name = function.__name__
        attributes = {
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "info": EditorInfo(name, revision, **info),
            "function": staticmethod(function),
        }
        return type(name, (_FunctionEditor,), attributes)

    return make


class _FunctionEditor:
    info: EditorInfo
    function: Function

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def accepts(self, instruction: str) -> bool:
        return True

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> EditResult:
        began = time.perf_counter()
        try:
            image = self.function(request.image.copy(), request.instruction, request.seed)
        except EditError as error:
            return EditResult(error=error, latency=time.perf_counter() - began)
        latency = time.perf_counter() - began
        if not same_aspect(image.size, request.image.size):
            return EditResult(error=BadOutput(f"an image of {image.width}x{image.height} pixels"), latency=latency)
        return EditResult(resized(image.convert("RGB"), request.image.size), latency=latency)
