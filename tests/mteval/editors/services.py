"""Services on the loopback that speak the protocols of OpenAI, Gemini and ``http``, and fail as real ones do."""

from __future__ import annotations

import base64
import email
import email.policy
import io
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image, ImageChops

KEY = "sk-test-0123456789abcdefghijklmnop"

Edit = Callable[[Image.Image, str], Image.Image]


def inverted(image: Image.Image, instruction: str) -> Image.Image:
    return ImageChops.invert(image)


@dataclass
class Asked:
    """What arrived: the images, the instruction, and the rest of the request."""

    path: str
    instruction: str
    images: list[Image.Image]
    fields: dict[str, Any]
    key: str


@dataclass
class Service:
    """What the server does, and what it saw.

    Attributes:
        edit: makes the image. faults: for the next requests, one each; then ``share`` of them fail at random by one of
            ``kinds``.
        info: what GET /info answers. retry_after: seconds or a date, with a 429 and a 503. slow: seconds that a request
            of the fault ``timeout`` takes.
    """

    edit: Edit = inverted
    faults: list[str] = field(default_factory=list)
    kinds: Sequence[str] = ()
    share: float = 0.0
    retry_after: float | str = 0.0
    slow: float = 1.0
    info: dict[str, Any] = field(default_factory=lambda: {"revision": "v1", "seedable": True, "max_images": 2})
    asked: list[Asked] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    most: int = 0
    url: str = ""
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    dialogues: dict[str, Image.Image] = field(default_factory=dict)

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
            if self.path == "/image.png":  # breaks off
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"half")
                self.close_connection = True
                return
            content = json.dumps(service.info).encode()
            self.send_response(200 if self.path == "/info" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

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
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = _read(self.path, self.headers, body)
            with service.lock:
                service.asked.append(asked)
            fault = service.fault()
            with service.lock:
                service.answered[fault or "ok"] += 1
            if fault == "timeout":
                time.sleep(service.slow)
            status, headers, content = _reply(service, asked, fault)
            if fault == "reset":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
            if fault == "cut":
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that went away is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def _read(path: str, headers: Any, body: bytes) -> Asked:
    key = headers.get("x-goog-api-key") or headers.get("Authorization", "").removeprefix("Bearer ")
    if path.endswith("/images/edits"):
        message = email.message_from_bytes(
            f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body, policy=email.policy.HTTP
        )
        fields: dict[str, Any] = {}
        images = []
        for part in message.iter_parts():
            name = re.search(r'name="([^"]+)"', part["Content-Disposition"])
            assert name is not None
            content: Any = part.get_payload(decode=True)
            if name[1].startswith("image"):
                images.append(_image(content))
            else:
                fields[name[1]] = content.decode()
        return Asked(path, fields["prompt"], images, fields, key)
    fields = json.loads(body)
    if path == "/edit":
        images = [_image(base64.b64decode(text)) for text in fields["images"]]
        return Asked(path, fields["instruction"], images, fields, key)
    if path.endswith("/responses"):
        parts = fields["input"][0]["content"]
        urls = [part["image_url"] for part in parts if part["type"] == "input_image"]
        images = [_image(base64.b64decode(url.partition(",")[2])) for url in urls]
        return Asked(path, parts[0]["text"], images, fields, key)
    parts = [part for content in fields["contents"] for part in content["parts"]]
    images = [_image(base64.urlsafe_b64decode(part["inlineData"]["data"])) for part in parts if "inlineData" in part]
    return Asked(path, next(part["text"] for part in parts if "text" in part), images, fields, key)


def _reply(service: Service, asked: Asked, fault: str | None) -> tuple[int, dict[str, str], bytes]:
    headers = {"Content-Type": "application/json"}
    gemini = "generateContent" in asked.path
    errors = {
        "429": (429, "rate_limit_exceeded", "RESOURCE_EXHAUSTED"),
        "quota": (429, "insufficient_quota", "RESOURCE_EXHAUSTED"),
        "500": (500, "server_error", "INTERNAL"),
        "503": (503, "server_busy", "UNAVAILABLE"),
        "key": (401, "invalid_api_key", "UNAUTHENTICATED"),
        "blocked": (400, "moderation_blocked", ""),
        "refused": (400, "invalid_value", "INVALID_ARGUMENT"),
    }
    error: dict[str, Any]
    if fault == "html":
        return 200, {"Content-Type": "text/html"}, b"<html>Back soon</html>"
    if fault == "null":
        return 200, headers, b"null"
    if fault == "echo" and asked.path == "/edit":
        error = {"type": "failed", "message": f"the token was {asked.key}"}
        return 200, headers, json.dumps({"error": error, "dialogue": f"talk-{asked.key}"}).encode()
    if fault == "blocked" and asked.path == "/edit":
        return 200, headers, json.dumps({"error": {"type": "blocked", "message": "no"}}).encode()
    if fault in errors and not (gemini and fault == "blocked"):
        status, code, name = errors[fault]
        if status in (429, 503):
            headers["Retry-After"] = str(service.retry_after)
        error = {"message": f"{fault}: the key was {asked.key}", "type": "error", "code": code}
        if gemini:
            info = [{"@type": "RetryInfo", "retryDelay": f"{service.retry_after}s"}] if status == 429 else []
            error = {"code": status, "message": error["message"], "status": name, "details": info}
        return status, headers, json.dumps({"error": error}).encode()
    if asked.path == "/edit" and fault == "words":
        return 200, headers, json.dumps({"error": {"type": "bad_output", "message": "no"}, "cost": 0.5}).encode()
    made = base64.b64encode(_made(service, asked, fault)).decode()
    if asked.path == "/edit":
        return 200, headers, json.dumps({"image": made, "cost": 0.25, "dialogue": "talk"}).encode()
    if gemini:
        part: dict[str, Any] = {"inlineData": {"mimeType": "image/png", "data": made}}
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
        if fault == "blocked":
            candidate = {"finishReason": "IMAGE_SAFETY"}
        elif fault == "words":
            candidate = {"content": {"role": "model", "parts": [{"text": "I cannot"}]}, "finishReason": "NO_IMAGE"}
        counts = {"promptTokenCount": 1000, "candidatesTokenCount": 2000, "totalTokenCount": 3000}
        return 200, headers, json.dumps({"candidates": [candidate], "usageMetadata": counts}).encode()
    if asked.path.endswith("/responses"):
        item = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": made}
        if fault == "words":
            item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": []}  # type: ignore[dict-item]
        with service.lock:
            name = f"resp_{len(service.dialogues)}"
            service.dialogues[name] = _image(base64.b64decode(made)) if fault is None else Image.new("RGB", (8, 8))
        body = {
            "id": name,
            "object": "response",
            "created_at": 0,
            "model": "m",
            "output": [item],
            "status": "completed",
        }
        more = {"parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "error": None}
        return 200, headers, json.dumps({**body, **more}).encode()
    details = {"text_tokens": 100, "image_tokens": 1000}
    usage: dict[str, Any] = {"input_tokens": 1100, "output_tokens": 2000, "total_tokens": 3100}
    usage |= {"input_tokens_details": details}
    if fault == "bare":
        del usage["input_tokens_details"]
    if fault == "free":
        usage = {}
    data = [] if fault == "words" else [{"url": f"{service.url}/image.png"} if fault == "link" else {"b64_json": made}]
    return 200, headers, json.dumps({"created": 0, "data": data, "usage": usage}).encode()


def _made(service: Service, asked: Asked, fault: str | None) -> bytes:
    own = asked.path == "/edit"
    image = (
        asked.images[asked.fields["image"] if own else -1]
        if asked.images
        else service.dialogues[asked.fields["previous_response_id"]]
    )
    edited = service.edit(image, asked.instruction)
    if fault == "shape":
        edited = edited.resize((edited.width, edited.height // 2))
    buffer = io.BytesIO()
    edited.save(buffer, "PNG")
    content = buffer.getvalue()
    return content[: len(content) // 2] if fault == "corrupt" else content


def _image(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image
