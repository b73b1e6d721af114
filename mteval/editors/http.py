"""The editor ``http``: your own server, by a contract of two requests in JSON (docs/editors.md).

``GET /info`` says what a run has to know. ``POST /edit`` holds one edit and is answered by an image or by an error::

    {"session": "s1", "turn": 2, "instruction": "Add a cat", "seed": 7, "images": ["<PNG in base64>"],
     "context": [], "image": 0, "history": [{"instruction": "Remove the dog", "image": 0}], "dialogue": null}
    {"image": "<PNG, JPEG or WebP in base64>", "cost": 0.01, "dialogue": "talk-7"}
    {"error": {"type": "blocked", "message": "..."}}
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mteval.editors.base import (
    About,
    BadOutput,
    Blocked,
    EditError,
    EditorInfo,
    EditRequest,
    EditResult,
    Fatal,
    RateLimited,
    Transient,
)
from mteval.errors import UsageError
from mteval.serve.client import TOKEN, Address, Answer, NoAnswer
from mteval.serve.wire import sentence
from mteval.services import retry_after, unavailable

if TYPE_CHECKING:
    from PIL.Image import Image

_TYPES: dict[str, type[EditError]] = {
    "blocked": Blocked,
    "rate_limited": RateLimited,
    "transient": Transient,
    "bad_output": BadOutput,
    "fatal": Fatal,
    "failed": EditError,
}


class Info(BaseModel):
    """The answer to GET /info; see :class:`EditorInfo`.

    Attributes:
        max_length: characters that an instruction may have, None = any number.
    """

    model_config = ConfigDict(extra="forbid")

    revision: Annotated[str, Field(min_length=1)]
    seedable: bool = False
    stateful: bool = False
    max_images: Annotated[int, Field(ge=1)] = 1
    concurrency: Annotated[int, Field(ge=1)] = 1
    cost_per_image: Annotated[float, Field(ge=0)] = 0.0
    max_length: Annotated[int, Field(ge=1)] | None = None


class Failure(BaseModel):
    """What stands in ``error``."""

    type: Literal["blocked", "rate_limited", "transient", "bad_output", "fatal", "failed"] = "failed"
    message: str = ""
    retry_after: Annotated[float, Field(ge=0)] | None = None

    def as_error(self) -> EditError:
        kind = _TYPES[self.type]
        return RateLimited(self.message, self.retry_after) if kind is RateLimited else kind(self.message)


class Edited(BaseModel):
    """The answer to POST /edit."""

    image: str | None = None
    error: Failure | None = None
    cost: float = 0.0
    dialogue: str | None = None


class HttpEditor:
    """An editor behind a server of your own; it gives back images of the size that came in.

    The token that the server may want is read from the environment variable MTEVAL_TOKEN.

    Args:
        url: of the server. timeout: seconds to wait for an edit.

    Raises:
        UsageError: the server does not answer, or not like an editor.
    """

    about = About("your own server, by a contract of two requests in JSON", "service", arguments="url=URL")

    def __init__(self, url: str, timeout: float = 300.0) -> None:
        self._address = Address(url, timeout)
        self._about = self._asked()
        about = self._about.model_dump(exclude={"max_length"})
        self.info = EditorInfo("http", service=True, **about)

    def _asked(self) -> Info:
        url = self._address.url
        try:
            answer = self._address.ask("GET", "/info")
        except NoAnswer as error:
            raise UsageError(f"{error}: start the server there, or mend url=") from error
        if answer.status != 200:
            raise UsageError(f"{url} answers {answer.status} {_words(answer)}: set {TOKEN} to its token, or mend url=")
        try:
            return Info.model_validate_json(answer.content)
        except ValidationError as error:
            raise UsageError(f"{url}/info does not answer like an editor ({sentence(error)})") from error

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def accepts(self, instruction: str) -> bool:
        return self._about.max_length is None or len(instruction) <= self._about.max_length

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One call each."""
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> EditResult:
        began = time.perf_counter()
        edited, image = Edited(), None
        try:
            edited = self._call(request)
            error = edited.error.as_error() if edited.error else None
            if error is None:
                image = _image(edited.image or "", request.image.size)
        except EditError as caught:
            error = caught
        latency = time.perf_counter() - began
        return EditResult(image, error, latency, cost=edited.cost, dialogue=edited.dialogue)

    def _call(self, request: EditRequest) -> Edited:
        try:
            answer = self._address.ask("POST", "/edit", _written(request))
        except NoAnswer as error:
            raise Transient(str(error)) from error
        if answer.status == 429:
            raise RateLimited(_words(answer), retry_after(answer.headers))
        if answer.status in (401, 403, 404):
            raise Fatal(f"{answer.status} {_words(answer)}")
        if answer.status >= 500:
            raise unavailable(f"{answer.status} {_words(answer)}", retry_after(answer.headers))
        if answer.status != 200:
            raise EditError(f"{answer.status} {_words(answer)}")
        try:
            return Edited.model_validate_json(answer.content)
        except ValidationError as error:
            raise Transient(f"{self._address.url} does not answer like an editor ({sentence(error)})") from error


def _written(request: EditRequest) -> bytes:
    """The body of POST /edit; an image stands in it once, however often it is pointed to."""
    images: list[Image] = []
    places: dict[int, int] = {}

    def place(image: Image) -> int:
        if id(image) not in places:
            places[id(image)] = len(images)
            images.append(image)
        return places[id(image)]

    body: dict[str, Any] = {
        "session": request.session,
        "turn": request.turn,
        "instruction": request.instruction,
        "seed": request.seed,
        "context": [place(image) for image in request.context],
        "image": place(request.image),
        "history": [{"instruction": text, "image": place(image)} for text, image in request.history],
        "dialogue": request.dialogue,
    }
    return json.dumps({**body, "images": [_png(image) for image in images]}).encode()


def _png(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


def _image(text: str, size: tuple[int, int]) -> Image:
    from PIL import Image as Pillow

    try:
        image = Pillow.open(io.BytesIO(base64.b64decode(text, validate=True)))
        image.load()
    except Exception as error:  # a decoder raises whatever it stumbles over
        raise Transient(f"what arrived is not an image in base64 ({type(error).__name__}: {error})") from error
    if image.size != size:
        raise BadOutput(f"an image of {image.width}x{image.height} pixels, not {size[0]}x{size[1]}")
    return image.convert("RGB")


def _words(answer: Answer) -> str:
    said = answer.said
    return str(said.get("message", said) if isinstance(said, dict) else said or answer.reason)
