"""A judge behind the chat protocol of OpenAI: its own models, a vLLM server, or any other service that speaks it."""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from mteval.errors import BadOutput, Blocked, CallError, Transient, UsageError
from mteval.judges.base import Answer, JudgeInfo, Question
from mteval.services import check_extra, check_key, openai_errors, without_key

if TYPE_CHECKING:
    from PIL.Image import Image

_LIKELIEST = 20
"""Tokens whose log-probabilities are asked for: the most that the protocol allows."""


class OpenAIJudge:
    """One chat completion a question.

    Args:
        model: as the service names it; a dated name pins the answers.
        base_url: of another service than OpenAI's; without a key in the environment it is asked without one.
        longest_side: larger images are made smaller, in pixels; None = as they are.
        detail: of the images, as the service knows it. body: further fields of the request.
        probabilities: whether the service tells log-probabilities, which the mode ``non-thinking`` needs.
        price: [in, out], US dollars per million tokens. concurrency: calls side by side.
        key_variable: the environment variable of the key. timeout: seconds.

    Raises:
        UsageError: the client library or the key is missing.
    """

    about: ClassVar[str] = "a model of OpenAI, of a vLLM server, of any service that speaks the chat protocol"
    arguments: ClassVar[str] = "model=NAME,base_url=URL"

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        longest_side: int | None = None,
        detail: str | None = None,
        probabilities: bool = True,
        price: Sequence[float] | None = None,
        concurrency: int = 8,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        check_extra("openai", "the judge openai")
        if base_url is None:
            check_key("the judge openai", key_variable)
        if price is not None and (len(price) != 2 or min(price) < 0):
            raise UsageError("price is [in, out] in US dollars per million tokens")
        self.model, self.base_url, self.longest_side, self.detail = model, base_url, longest_side, detail
        self.price, self.key_variable, self.timeout, self.body = price, key_variable, timeout, dict(body or {})
        settings = {"at": base_url, "longest_side": longest_side, "detail": detail, **self.body}
        told = ",".join(f"{name}={value}" for name, value in settings.items() if value is not None)
        revision = f"{model} ({told})" if told else model
        self.info = JudgeInfo("openai", revision, probabilities, concurrency=concurrency)

    @property
    def key(self) -> str:
        return os.environ.get(self.key_variable, "")

    @cached_property
    def client(self) -> Any:
        from openai import OpenAI

        return OpenAI(api_key=self.key or "none", base_url=self.base_url, max_retries=0, timeout=self.timeout)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [self._ask(question) for question in questions]

    def _ask(self, question: Question) -> Answer:
        began = time.perf_counter()
        try:
            with openai_errors():
                return self._answer(question, began)
        except CallError as error:
            return Answer(error=without_key(error, self.key), latency=time.perf_counter() - began)

    def _answer(self, question: Question, began: float) -> Answer:
        limit = "max_completion_tokens" if self.base_url is None else "max_tokens"  # other services know the older name
        wanted = {"logprobs": True, "top_logprobs": _LIKELIEST} if question.choices else {}
        made = self.client.chat.completions.create(
            model=self.model,
            messages=self._messages(question),
            temperature=question.temperature,
            seed=question.vote,
            **{limit: question.tokens},
            **wanted,
            extra_body=self.body or None,
        )
        usage = getattr(made, "usage", None)
        tokens = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
        took: dict[str, Any] = {
            "tokens_in": tokens[0],
            "tokens_out": tokens[1],
            "cost": sum(rate * count for rate, count in zip(self.price or (), tokens, strict=False)) / 1e6,
            "latency": time.perf_counter() - began,
        }
        choices = getattr(made, "choices", None)
        if not choices:
            return Answer(error=Transient("an answer without a choice"), **took)
        choice = choices[0]
        refusal = getattr(choice.message, "refusal", None)
        if refusal or choice.finish_reason == "content_filter":
            return Answer(error=Blocked(refusal or "stopped by the content filter"), **took)
        if choice.message.content is None:
            return Answer(error=BadOutput("an answer without words"), **took)
        return Answer(
            choice.message.content, choice.finish_reason == "length", _first_token(choice) if wanted else None, **took
        )

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else self._image(part) for part in question.parts
        ]
        roles = ("assistant", "user")
        later = [{"role": roles[k % 2], "content": text} for k, text in enumerate(question.replied)]
        return [{"role": "user", "content": content}, *later]

    def _image(self, image: Image) -> dict[str, Any]:
        from PIL import Image as Pillow

        if self.longest_side and max(image.size) > self.longest_side:
            scale = self.longest_side / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Pillow.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        return {"type": "image_url", "image_url": {"url": url, **({"detail": self.detail} if self.detail else {})}}


def _first_token(choice: Any) -> dict[str, float] | None:
    """Token -> log-probability at the first place of the reply, None where the service told none."""
    tokens = getattr(getattr(choice, "logprobs", None), "content", None)
    if not tokens:
        return None
    return {said.token: float(said.logprob) for said in (tokens[0], *(tokens[0].top_logprobs or ()))}
