"""A service on the loopback that speaks OpenAI's chat completions, and fails and rambles as real ones do."""

from __future__ import annotations

import base64
import io
import json
import math
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

KEY = "sk-test-0123456789abcdefghijklmnop"

DOWN = ("429", "500", "timeout", "reset", "cut")
"""Faults that may pass when asked again."""
UNREADABLE = ("two", "prose", "empty", "range", "no-logprobs", "no-mass")
"""Faults that answer, but not in the format."""


@dataclass
class Asked:
    """What arrived.

    Attributes:
        parts: text and images of the first message in their order; text: its text alone, in lines; images: its images.
        later: the text of the messages after the first. fields: the whole body. key: the Bearer token.
    """

    path: str
    parts: list[str | Image.Image]
    later: list[str]
    fields: dict[str, Any]
    key: str

    @property
    def text(self) -> str:
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[Image.Image]:
        return [part for part in self.parts if isinstance(part, Image.Image)]

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.fields.get("logprobs"))


@dataclass
class Said:
    """What the model says; ``probabilities`` of its first token are told where they are asked for."""

    content: str
    probabilities: Mapping[str, float] | None = None


def ones(asked: Asked) -> Said:
    """1 on any scale of numbers, surely."""
    return Said("1", {"1": 1.0}) if asked.wants_logprobs else Said('It is as it is.\n{"score": 1}')


@dataclass
class Service:
    """What the server does, and what it saw.

    Attributes:
        reply: makes the answer. faults: for the next requests, one each (None = none); then ``share`` of them fail at
            random by one of ``kinds``. dice: what is random about it.
        model: what GET /v1/models lists, and the answers are from.
        retry_after: seconds, with a 429. slow: seconds that a request of the fault ``timeout`` takes.
        pause: seconds that every answer takes.
        asked: requests in the order of their coming. answered: how many by fault, ``ok`` without one.
        most: requests at work side by side.

    Faults: ``429`` (with Retry-After), ``500``, ``timeout``, ``reset``, ``cut`` (half of the body), ``quota``, ``key``
    (401), ``bad`` (400), ``fenced`` (JSON in a code block, which can be read), ``two`` (JSON objects), ``prose``,
    ``empty``, ``length`` (cut at the limit of tokens), ``refusal``, ``filter`` (finish_reason content_filter),
    ``blocked`` (400 content_policy_violation), ``null`` (no content), ``choiceless``,
    ``range`` (99), ``no-logprobs`` and ``no-mass`` (the reply's tokens hold
    0.6), which change nothing where no log-probabilities are asked for.
    """

    reply: Callable[[Asked], Said] = ones
    faults: list[str | None] = field(default_factory=list)
    kinds: Sequence[str] = ()
    share: float = 0.0
    model: str = "judge-2025-01-01"
    retry_after: float = 0.0
    slow: float = 1.0
    pause: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    most: int = 0
    url: str = ""
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def calls(self) -> int:
        return len(self.asked)

    def fault(self) -> str | None:
        with self.lock:
            if self.faults:
                return self.faults.pop(0)
            return self.dice.choice(list(self.kinds)) if self.dice.random() < self.share else None


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    """The service at ``service.url`` while this lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            listed = {"object": "list", "data": [{"id": service.model, "object": "model", "owned_by": "test"}]}
            known = self.path == "/v1/models"
            self._send(200 if known else 404, {}, json.dumps(listed if known else _error("no such page")).encode())

        def do_POST(self) -> None:
            with service.lock:
                service.running += 1
                service.most = max(service.most, service.running)
            try:
                self._answer()
            finally:
                with service.lock:
                    service.running -= 1

        def _answer(self) -> None:
            asked = _read(self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            fault = service.fault()
            with service.lock:
                service.asked.append(asked)
                service.answered[fault or "ok"] += 1
            time.sleep(service.slow if fault == "timeout" else service.pause)
            if fault == "reset":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, headers, content = _reply(service, asked, fault)
            self._send(status, headers, content, cut=fault == "cut")

        def _send(self, status: int, headers: Mapping[str, str], content: bytes, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            content = content[: len(content) // 2] if cut else content
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """A client that went away is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def _read(path: str, headers: Any, body: bytes) -> Asked:
    fields = json.loads(body)
    first, *later = fields["messages"]
    content = first["content"]
    parts: list[str | Image.Image] = [content] if isinstance(content, str) else [_part(part) for part in content]
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    return Asked(path, parts, [message["content"] for message in later], fields, key)


def _part(part: Mapping[str, Any]) -> str | Image.Image:
    if part["type"] == "text":
        return str(part["text"])
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64", f"an image is sent as PNG, not as {head}"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image


def _error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


_STATUS = {
    "429": (429, "rate_limit_exceeded"),
    "quota": (429, "insufficient_quota"),
    "500": (500, "server_error"),
    "key": (401, "invalid_api_key"),
    "bad": (400, "invalid_value"),
    "blocked": (400, "content_policy_violation"),
}


def _reply(service: Service, asked: Asked, fault: str | None) -> tuple[int, dict[str, str], bytes]:
    if fault in _STATUS:
        status, code = _STATUS[fault]
        headers = {"Retry-After": f"{service.retry_after:g}"} if status == 429 else {}
        return status, headers, json.dumps(_error(f"{fault}: the key was {asked.key}", code)).encode()
    said = _marred(service.reply(asked), fault)
    message: dict[str, Any] = {"role": "assistant", "content": said.content, "refusal": None}
    finish = "stop"
    if fault == "length":
        message["content"], finish = said.content[: len(said.content) // 2], "length"
    elif fault == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I'm sorry, I can't help with that."}
    elif fault == "filter":
        message["content"], finish = "", "content_filter"
    elif fault == "null":
        message["content"] = None
    logprobs = None
    if asked.wants_logprobs and said.probabilities and fault not in ("no-logprobs", "refusal", "filter"):
        logprobs = {"content": [_token(said.content, said.probabilities, asked.fields.get("top_logprobs", 0))]}
    tokens_in, tokens_out = 10 + 100 * len(asked.images), max(1, len(said.content.split()))
    body = {
        "id": f"chatcmpl-{service.calls}",
        "object": "chat.completion",
        "created": 0,
        "model": service.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": logprobs}]
        if fault != "choiceless"
        else [],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    }
    return 200, {}, json.dumps(body).encode()


def _marred(said: Said, fault: str | None) -> Said:
    """The same with a fault of its format."""
    words = {
        "two": '{"score": 0}\nOn second thoughts:\n{"score": 2}',
        "prose": "It looks rather good to me, I would say 2 of them.",
        "empty": "",
    }
    if fault in words:
        first = words[fault].partition(" ")[0] or "<eos>"
        return Said(words[fault], {first: 1.0})
    if fault == "fenced":
        line = said.content.splitlines()[-1] if said.content else ""
        return Said(f"Let me see.\n```json\n{line}\n```", {"Let": 1.0})
    if fault == "range":
        return Said("99", {"99": 1.0}) if said.probabilities else Said('So it is.\n{"score": 99}')
    if fault == "no-mass" and said.probabilities:
        return Said(said.content, {**{token: 0.6 * p for token, p in said.probabilities.items()}, "The": 0.4})
    return said


def _token(content: str, probabilities: Mapping[str, float], most: int) -> dict[str, Any]:
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    told = [
        {"token": token, "logprob": math.log(p) if p > 0 else -9999.0, "bytes": list(token.encode())}
        for token, p in ranked
    ]
    chosen = next((one for one in told if one["token"] == content), told[0])
    return {**chosen, "top_logprobs": told[:most]}
