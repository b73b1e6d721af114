"""Google's Gemini image models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mteval.editors.api import ApiEditor, Reply, Size, png
from mteval.editors.base import (
    About,
    BadOutput,
    Blocked,
    EditError,
    EditorInfo,
    EditRequest,
    Fatal,
    RateLimited,
    Transient,
)
from mteval.errors import UsageError
from mteval.services import retry_after, unavailable

if TYPE_CHECKING:
    from PIL.Image import Image

_LONG_SIDE = 1024
"""Pixels of what is sent."""
# What the Gemini API documents as aspect ratios.
_RATIOS = ((1, 1), (2, 3), (3, 2), (3, 4), (4, 3), (4, 5), (5, 4), (9, 16), (16, 9), (21, 9))
_BLOCKED = (
    *("SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "BLOCKLIST", "SPII"),
    *("RECITATION", "IMAGE_RECITATION", "MODEL_ARMOR"),
)


class GeminiImages(ApiEditor):
    """Gemini's ``generate_content`` with images in and out: one call an edit, no dialogue.

    The model makes images of a few aspect ratios in sizes of its own, so what it makes is always resized back to the
    size that came in.

    Args:
        model: as the service names it. image_size: ``1K``, ``2K`` or ``4K`` where the model takes it.
        base_url: of another service with the same protocol.
        price: [tokens in, tokens out] in US dollars per million, so that costs are those of the tokens that were used.
        cost_per_image, key_variable: see :class:`ApiEditor`. timeout: seconds.
        max_images: how many the model can be shown. concurrency: calls side by side.
    """

    about = About("Google's Gemini image models", "service", images=3, needs=("gemini",))

    def __init__(
        self,
        model: str = "gemini-2.5-flash-image",
        image_size: str | None = None,
        base_url: str | None = None,
        price: Sequence[float] | None = None,
        cost_per_image: float = 0.0,
        max_images: int = about.images,
        concurrency: int = 8,
        key_variable: str = "GEMINI_API_KEY",
        timeout: float = 180.0,
    ) -> None:
        if price is not None and (len(price) != 2 or min(price) < 0):
            raise UsageError("price is [tokens in, tokens out] in US dollars per million")
        info = EditorInfo(
            "gemini-images",
            model,
            seedable=False,
            max_images=max_images,
            concurrency=concurrency,
            service=True,
            cost_per_image=cost_per_image,
            tells_cost=price is not None,
            settings={"base_url": base_url, "image_size": image_size, "long_side": _LONG_SIDE},
        )
        sizes = [(_LONG_SIDE * w // max(w, h), _LONG_SIDE * h // max(w, h)) for w, h in _RATIOS]
        super().__init__(info, sizes, "keep", key_variable, timeout)
        self.ratios = dict(zip(sizes, _RATIOS, strict=True))
        self.model, self.image_size, self.base_url, self.price = model, image_size, base_url, price

    @cached_property
    def client(self) -> Any:
        from google import genai
        from google.genai import types

        options = types.HttpOptions(
            base_url=self.base_url,
            timeout=int(1000 * self.timeout),
            retry_options=types.HttpRetryOptions(attempts=1),
        )
        return genai.Client(api_key=self.key, http_options=options)

    def ask(self, request: EditRequest, images: Sequence[Image], size: Size) -> Reply:
        from google.genai import errors, types

        width, height = self.ratios[size]
        parts = [types.Part.from_bytes(data=png(image), mime_type="image/png") for image in images]
        config = types.GenerateContentConfig(
            response_modalities=["IMAGE"],
            image_config=types.ImageConfig(aspect_ratio=f"{width}:{height}", image_size=self.image_size),
        )
        try:
            answer = self.client.models.generate_content(
                model=self.model, contents=[*parts, request.instruction], config=config
            )
        # All `from None`, so that no traceback shows the key in the library's own error.
        except errors.APIError as error:
            raise _translated(error) from None
        except (OSError, ValueError) as error:
            raise Transient(f"{type(error).__name__}: {error}") from None
        except Exception as error:  # of whatever HTTP library the client uses
            if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "requests", "aiohttp"):
                raise Transient(f"{type(error).__name__}: {error}") from None
            raise
        return self._reply(answer)

    def _reply(self, answer: Any) -> Reply:
        candidates = answer.candidates or []
        if not candidates and not answer.prompt_feedback:
            raise Transient("what arrived is no answer of this protocol")
        cost = self._cost(answer.usage_metadata)
        content = candidates[0].content if candidates else None
        found = [part.inline_data.data for part in (content and content.parts) or () if part.inline_data]
        if found:
            return Reply(found[-1], cost=cost)
        said = answer.prompt_feedback and answer.prompt_feedback.block_reason
        reason = said or (candidates[0].finish_reason if candidates else None)
        name = getattr(reason, "name", None) or "no reason"
        return Reply(None, Blocked(name) if said or name in _BLOCKED else BadOutput(f"no image: {name}"), cost)

    def _cost(self, usage: Any) -> float:
        if self.price is None or usage is None:
            return self.info.cost_per_image
        tokens = (usage.prompt_token_count or 0, usage.candidates_token_count or 0)
        return sum(price * count for price, count in zip(self.price, tokens, strict=True)) / 1e6


def _translated(error: Any) -> EditError:
    text = f"{error.status}: {error.message}"
    wait = _delay(error.details)
    if wait is None:
        wait = retry_after(getattr(error.response, "headers", None) or {})
    if error.code == 429:
        return RateLimited(text, wait)
    if error.code in (401, 403, 404) or "API key" in text:
        return Fatal(text)
    if error.code >= 500 or error.code == 408:
        return unavailable(text, wait)
    return EditError(text)


def _delay(details: Any) -> float | None:
    """Seconds, from the RetryInfo of an error's details."""
    inner = details.get("error", {}).get("details", []) if isinstance(details, dict) else []
    for one in inner:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(one.get("retryDelay"))) if isinstance(one, dict) else None
        if found:
            return float(found[1])
    return None
