"""OpenAI's image models, and whatever speaks their protocol: ``images.edit`` and the Responses API."""

from __future__ import annotations

import base64
import http.client
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from mteval.editors.api import ApiEditor, Reply, Size, png, read_sizes
from mteval.editors.base import About, BadOutput, Blocked, EditorInfo, EditRequest, Transient
from mteval.errors import UsageError
from mteval.services import MODERATION, openai_errors

if TYPE_CHECKING:
    from PIL.Image import Image

_SIZES = "1024x1024,1536x1024,1024x1536"
_NO_ANSWER = "what arrived is no answer of this protocol"  # a page of HTML, say, from something on the way


class _OpenAI(ApiEditor):
    """What the two ways to ask share: the client, its errors, the price of tokens."""

    def __init__(
        self,
        info: EditorInfo,
        base_url: str | None,
        sizes: str | Sequence[str],
        resolution: str,
        price: Sequence[float] | None,
        key_variable: str,
        timeout: float,
    ) -> None:
        if price is not None and (len(price) != 3 or min(price) < 0):
            raise UsageError("price is [text in, image in, image out] in US dollars per million tokens")
        super().__init__(info, read_sizes(sizes), resolution, key_variable, timeout)
        self.base_url, self.price = base_url, price

    @cached_property
    def client(self) -> Any:
        from openai import OpenAI

        return OpenAI(api_key=self.key, base_url=self.base_url, max_retries=0, timeout=self.timeout)

    def ask(self, request: EditRequest, images: Sequence[Image], size: Size) -> Reply:
        with openai_errors():
            return self.call(request, images, size)

    @abstractmethod
    def call(self, request: EditRequest, images: Sequence[Image], size: Size) -> Reply:
        """Make one call with the client, whose errors are translated by :meth:`ask`."""

    def cost(self, usage: Any) -> float:
        """US dollars: of the tokens where their price and number are known, else of an image.

        Where a service does not tell which tokens were text, all that went in count as the dearer kind.
        """
        made = getattr(usage, "output_tokens", None)
        if self.price is None or made is None:
            return self.info.cost_per_image
        text, image, out = self.price
        details = getattr(usage, "input_tokens_details", None)
        words, pictures = (getattr(details, kind, None) for kind in ("text_tokens", "image_tokens"))
        if words is None or pictures is None:
            words, pictures, image = 0, getattr(usage, "input_tokens", None) or 0, max(text, image)
        return float(text * words + image * pictures + out * made) / 1e6


class OpenAIImages(_OpenAI):
    """OpenAI's ``images.edit``, or any service with the same protocol by ``base_url``: one call an edit, no dialogue.

    Args:
        model: as the service names it; a dated name pins the behaviour.
        base_url: of another service. quality, input_fidelity: as the service knows them, sent only where given.
        sizes: that the model makes. seeded: the service takes a ``seed`` and keeps to it (OpenAI's own does not).
        resolution, cost_per_image, key_variable: see :class:`ApiEditor`. timeout: seconds.
        price: [text in, image in, image out] in US dollars per million tokens, so that costs are those of the tokens
            that were used.
        max_images: how many the model can be shown (16 for OpenAI's). concurrency: calls side by side.
        body: further fields of the request.
    """

    about = About(
        "OpenAI's images.edit, and every service that speaks its protocol by base_url",
        "service",
        images=16,
        needs=("openai",),
    )

    def __init__(
        self,
        model: str = "gpt-image-2",
        base_url: str | None = None,
        quality: str | None = None,
        input_fidelity: str | None = None,
        sizes: str | Sequence[str] = _SIZES,
        seeded: bool = False,
        resolution: str = "keep",
        price: Sequence[float] | None = None,
        cost_per_image: float = 0.0,
        max_images: int = about.images,
        concurrency: int = 8,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 180.0,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self.body = dict(body or {})
        settings = _given(quality=quality, input_fidelity=input_fidelity)
        info = EditorInfo(
            "openai-images",
            model,
            seedable=seeded,
            max_images=max_images,
            concurrency=concurrency,
            service=True,
            cost_per_image=cost_per_image,
            tells_cost=price is not None,
            settings=_settings(base_url, sizes, resolution, settings) | {"seeded": seeded, "body": self.body},
        )
        super().__init__(info, base_url, sizes, resolution, price, key_variable, timeout)
        self.model, self.seeded, self.settings = model, seeded, settings

    def call(self, request: EditRequest, images: Sequence[Image], size: Size) -> Reply:
        from openai.types import ImagesResponse

        files = [(f"image{k}.png", png(image), "image/png") for k, image in enumerate(images)]
        made = self.client.images.edit(
            model=self.model,
            image=files if len(files) > 1 else files[0],
            prompt=request.instruction,
            size=f"{size[0]}x{size[1]}",
            n=1,
            **self.settings,
            extra_body={**self.body, **({"seed": request.seed % 2**31} if self.seeded else {})} or None,
        )
        if not isinstance(made, ImagesResponse):
            raise Transient(_NO_ANSWER)
        cost = self.cost(made.usage)
        found = made.data[0] if made.data else None
        if found is None:
            return Reply(None, BadOutput("an answer without an image"), cost)
        return Reply.read(lambda: _decoded(found.b64_json) if found.b64_json else self._fetched(found.url), cost)

    def _fetched(self, url: str | None) -> bytes:
        if not url or not url.startswith(("https://", "http://127.0.0.1")):
            raise BadOutput("an answer with neither an image nor a link to one")
        try:
            with urlopen(url, timeout=self.timeout) as response:
                content: bytes = response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Transient(f"the image cannot be fetched ({error})") from None  # see openai_errors
        return content


class OpenAIResponses(_OpenAI):
    """A dialogue with a model that has OpenAI's image generation tool; the history stays on the server.

    At the first turn the image is sent with the instruction, later the instruction alone: the model goes on from its
    own last image as it kept it. Teacher-forced and single-shot turns are dialogues of one turn.

    Args:
        model: the one that is talked to. image_model, quality, input_fidelity: of the tool, sent only where given.
        base_url, sizes, resolution, cost_per_image, concurrency, key_variable, timeout: as for :class:`OpenAIImages`.
    """

    about = About(
        "OpenAI's Responses API with its image tool: a dialogue whose history stays on the server",
        "service",
        stateful=True,
        needs=("openai",),
    )

    def __init__(
        self,
        model: str = "gpt-5.2",
        image_model: str | None = None,
        base_url: str | None = None,
        quality: str | None = None,
        input_fidelity: str | None = None,
        sizes: str | Sequence[str] = _SIZES,
        resolution: str = "keep",
        cost_per_image: float = 0.0,
        concurrency: int = 8,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 300.0,
    ) -> None:
        settings = _given(model=image_model, quality=quality, input_fidelity=input_fidelity)
        info = EditorInfo(
            "openai-responses",
            f"{model}+{image_model}" if image_model else model,
            seedable=False,
            stateful=True,
            concurrency=concurrency,
            service=True,
            cost_per_image=cost_per_image,
            settings=_settings(base_url, sizes, resolution, settings),
        )
        super().__init__(info, base_url, sizes, resolution, None, key_variable, timeout)
        self.model, self.settings = model, settings

    def call(self, request: EditRequest, images: Sequence[Image], size: Size) -> Reply:
        from openai.types.responses import Response

        content: list[dict[str, Any]] = [{"type": "input_text", "text": request.instruction}]
        if request.dialogue is None:
            urls = (f"data:image/png;base64,{base64.b64encode(png(image)).decode()}" for image in images)
            content += [{"type": "input_image", "image_url": url} for url in urls]
        tool = {"type": "image_generation", "size": f"{size[0]}x{size[1]}", **self.settings}
        answer = self.client.responses.create(
            model=self.model,
            input=[{"role": "user", "content": content}],
            tools=[tool],
            tool_choice={"type": "image_generation"},
            **({"previous_response_id": request.dialogue} if request.dialogue else {}),
        )
        if not isinstance(answer, Response):
            raise Transient(_NO_ANSWER)
        cost = self.info.cost_per_image
        calls = [item for item in answer.output or () if item.type == "image_generation_call"]
        made = next((item.result for item in calls if item.result), None)
        if made is not None:
            return Reply.read(lambda: _decoded(made), cost, answer.id)
        error = next((found for item in calls if (found := getattr(item, "error", None))), None)
        if error is None:
            return Reply(None, BadOutput("an answer without an image"), cost)
        kind = Blocked if error.code in MODERATION else BadOutput
        return Reply(None, kind(error.message), cost)


def _given(**settings: str | None) -> dict[str, str]:
    return {name: value for name, value in settings.items() if value is not None}


def _settings(
    base_url: str | None, sizes: str | Sequence[str], resolution: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run records of how it is asked."""
    made = [f"{width}x{height}" for width, height in read_sizes(sizes)]
    return {"base_url": base_url, "sizes": made, "resolution": resolution, **given}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Transient(f"what arrived is not base64 ({error})") from error
