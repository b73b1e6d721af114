"""A judge as an endpoint that speaks OpenAI's chat completions, so that whatever asks such a service can ask ours.

Read of a request: ``messages`` of text and images (data URLs), ``max_tokens`` or ``max_completion_tokens``,
``temperature``, ``seed`` (the number of the vote), ``logprobs`` and ``top_logprobs`` (of a reply of one token), ``n`` =
1. Other fields are let pass, as services do.
"""

from __future__ import annotations

import base64
import io
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from math import ceil
from threading import BoundedSemaphore, Lock
from typing import Annotated, Any, Literal
from uuid import uuid4

from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from mteval.errors import Blocked, CallError, Fatal, RateLimited, Transient
from mteval.judges.base import Answer, Judge, Question
from mteval.judges.contract import SCALES
from mteval.serve.server import Refused
from mteval.serve.wire import BadRequest, sentence

_FORMATS = ("PNG", "JPEG", "WEBP")
_TOKENS = 1024
_LEAST = -9999.0
"""The log-probability of what cannot be, as OpenAI writes it."""
_WORDS = tuple(dict.fromkeys(word for scale in SCALES.values() for word in scale.values))
"""The tokens of every scale: a request does not say which are wanted, only how many of the likeliest."""

Count = Annotated[int, Field(ge=1)]


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    url: str


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    n: Literal[1] | None = None
    stream: Literal[False] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class Chat:
    """One judge, asked for as many questions at a time as it takes, those that wait together.

    Args:
        model: its name for clients. They keep replies under it, so it should pin the answers.
    """

    def __init__(self, judge: Judge, model: str) -> None:
        self.judge, self.model = judge, model
        self._waiting: deque[tuple[Question, Future[Answer]]] = deque()
        self._places, self._one = BoundedSemaphore(judge.info.concurrency), Lock()

    @property
    def routes(self) -> Mapping[tuple[str, str], Callable[[bytes], dict[str, Any]]]:
        return {
            ("GET", "/v1/models"): lambda _: self.models(),
            ("POST", "/v1/chat/completions"): self.complete,
        }

    def error(self, refused: Refused) -> dict[str, Any]:
        """OpenAI's shape, with the codes that its clients look at."""
        codes = {HTTPStatus.UNAUTHORIZED: "invalid_api_key", HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_exceeded"}
        kind = "invalid_request_error" if refused.status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
        code = "content_policy_violation" if isinstance(refused.__cause__, Blocked) else codes.get(refused.status)
        return {"error": {"message": str(refused), "type": kind, "param": None, "code": code}}

    def models(self) -> dict[str, Any]:
        """The answer to GET /v1/models."""
        return {"object": "list", "data": [{"id": self.model, "object": "model", "created": 0, "owned_by": "mteval"}]}

    def complete(self, body: bytes) -> dict[str, Any]:
        """The answer to POST /v1/chat/completions.

        Raises:
            Refused: 400 where the body cannot be read or asks for what is not there, 404 for another model; what the
                judge says went wrong as the status that its clients take it for.
        """
        try:
            request = ChatRequest.model_validate_json(body)
            question = read_question(request)
        except (ValidationError, BadRequest) as error:
            told = sentence(error) if isinstance(error, ValidationError) else str(error)
            raise Refused(HTTPStatus.BAD_REQUEST, told) from error
        if request.model != self.model:
            raise Refused(HTTPStatus.NOT_FOUND, f"no model '{request.model}' is served, but '{self.model}'")
        try:
            answer = self._asked(question)
            if answer.error is not None:
                raise answer.error
        except Exception as error:  # a judge's own, or whatever a model stumbles over
            raise Refused(_status(error), f"{type(error).__name__}: {error}", _headers(error)) from error
        return _reply(request, answer)

    def _asked(self, question: Question) -> Answer:
        mine: Future[Answer] = Future()
        with self._one:
            self._waiting.append((question, mine))
        with self._places:  # whoever gets in asks for all that wait, up to a batch
            while not mine.done() and (batch := self._next()):
                self._ask(batch)
        return mine.result()

    def _next(self) -> list[tuple[Question, Future[Answer]]]:
        with self._one:
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self.judge.info.batch_size))]

    def _ask(self, batch: Sequence[tuple[Question, Future[Answer]]]) -> None:
        """Settle the futures of a batch; what the judge raises is raised to everyone in it."""
        try:
            answers = self.judge.ask([question for question, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)


def read_question(request: ChatRequest) -> Question:
    """What the judge is asked: the messages before its first reply are one question, those after it are told in turn.

    Raises:
        BadRequest: what no judge can be asked.
    """
    tokens = request.max_completion_tokens or request.max_tokens or _TOKENS
    if request.logprobs and tokens > 1:
        raise BadRequest("log-probabilities are told of replies of one token: send max_tokens=1 with logprobs")
    roles = [message.role for message in request.messages]
    first = roles.index("assistant") if "assistant" in roles else len(roles)
    later = ["assistant" if k % 2 == 0 else "user" for k in range(len(roles) - first)]
    if first == 0 or roles[first:] != later or roles[-1] == "assistant":
        raise BadRequest("messages begin and end with the user's, and those of the assistant stand between two of them")
    return Question(
        parts=tuple(part for message in request.messages[:first] for part in _parts(message)),
        tokens=tokens,
        temperature=1.0 if request.temperature is None else request.temperature,
        choices=_WORDS if request.logprobs else (),
        vote=request.seed or 0,
        replied=tuple("\n".join(map(_text, _parts(message))) for message in request.messages[first:]),
    )


def _parts(message: Message) -> list[str | Image.Image]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text if isinstance(part, TextPart) else _image(part.image_url.url) for part in message.content]


def _text(part: str | Image.Image) -> str:
    if not isinstance(part, str):
        raise BadRequest("images stand in the messages before the first reply")
    return part


def _image(url: str) -> Image.Image:
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise BadRequest("an image is sent as a data URL, data:image/png;base64,..., nothing is fetched from elsewhere")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=_FORMATS)
        image.load()
    except Exception as error:  # a decoder raises whatever it stumbles over: OSError, SyntaxError, ValueError, ...
        known = ", ".join(_FORMATS)
        raise BadRequest(f"an image is none of {known} in base64 ({type(error).__name__}: {error})") from error
    return image.convert("RGB")


def _status(error: Exception) -> HTTPStatus:
    """What OpenAI's client library makes the same kind of error of (:func:`mteval.services.openai_errors`)."""
    known = {
        Blocked: HTTPStatus.BAD_REQUEST,
        RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
        Transient: HTTPStatus.SERVICE_UNAVAILABLE,
        Fatal: HTTPStatus.FORBIDDEN,
        CallError: HTTPStatus.UNPROCESSABLE_ENTITY,
    }
    found = (status for kind, status in known.items() if isinstance(error, kind))
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


def _headers(error: Exception) -> dict[str, str]:
    wait = error.retry_after if isinstance(error, RateLimited) else None
    return {} if wait is None else {"Retry-After": str(ceil(wait))}


def _reply(request: ChatRequest, answer: Answer) -> dict[str, Any]:
    told = answer.log_probabilities if request.logprobs else None
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text, "refusal": None},
        "finish_reason": "length" if answer.truncated else "stop",
        "logprobs": None if told is None else {"content": [_first_token(answer.text, told, request.top_logprobs or 0)]},
    }
    usage = {"prompt_tokens": answer.tokens_in, "completion_tokens": answer.tokens_out}
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [choice],
        "usage": {**usage, "total_tokens": answer.tokens_in + answer.tokens_out},
    }


def _first_token(text: str, told: Mapping[str, float], most: int) -> dict[str, Any]:
    ranked = [
        {"token": token, "logprob": max(logarithm, _LEAST), "bytes": list(token.encode())}
        for token, logarithm in sorted(told.items(), key=lambda item: -item[1])
    ]
    said = next((token for token in ranked if token["token"] == text), ranked[0])
    return {**said, "top_logprobs": ranked[:most]}
