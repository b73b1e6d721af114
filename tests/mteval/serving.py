"""A real server in a thread or a process, and real turns of ShapesEdit to be judged."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mteval.benchmarks.shapes import ShapesEdit
from mteval.scorers.base import Score, Scorer, ScorerInfo, TurnView
from mteval.serve.server import Answers, RewardServer
from mteval.serve.service import Service

ROOT = Path(__file__).resolve().parents[2]
URL = r"http://127\.0\.0\.1:\d+"


@contextmanager
def served(
    *scorers: Scorer, max_batch: int = 64, token: str | None = None, max_bytes: int = 10**8, port: int = 0
) -> Iterator[RewardServer]:
    """Scorers behind HTTP, in a thread of this process."""
    with running(Service(scorers, max_batch), token, max_bytes, port) as server:
        yield server


@contextmanager
def running(
    service: Answers, token: str | None = None, max_bytes: int = 10**8, port: int = 0
) -> Iterator[RewardServer]:
    """A service behind HTTP, in a thread of this process."""
    with RewardServer(service, "127.0.0.1", port, token, max_bytes) as server, answering(server):
        yield server


@contextmanager
def answering(server: RewardServer) -> Iterator[None]:
    """Within it a server answers, in a thread of this process."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``mteval serve`` in a process of its own, and the line that it says when it is ready."""
    call = [sys.executable, "-m", "mteval", "serve", "--port", "0", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(call, cwd=ROOT, env=dict(os.environ), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout
            yield process, process.stdout.readline()
        finally:
            process.kill()


def send(
    server: RewardServer, body: Any, path: str = "/score", method: str = "POST", **headers: str
) -> tuple[int, dict[str, Any]]:
    """The status and the JSON that a request is answered with; ``Content_Type`` stands for the header's dash."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    connection.request(method, path, body if isinstance(body, bytes | None) else json.dumps(body).encode(), given)
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    return response.status, found


def blurred(image: Image.Image, seed: int) -> Image.Image:
    """The image with noise of a few grey levels."""
    noise = np.random.default_rng(seed).integers(-20, 21, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image, np.int16) + noise).clip(0, 255).astype(np.uint8))


def shapes_views(sessions: int = 6, turns: int = 4, split: str = "train") -> list[TurnView]:
    """Turns of ShapesEdit under every protocol: some done, some not, all of them noisy."""
    bench = ShapesEdit(split=split)
    views = []
    for k, session in enumerate(bench.sessions(turns, sessions)):
        states = [bench.reference(session, turn) for turn in range(turns + 1)]
        made = [
            states[0],
            *(blurred(states[turn - (turn + k) % 3 // 2], 100 * k + turn) for turn in range(1, turns + 1)),
        ]
        texts = [turn.instruction for turn in session.turns]
        for turn in range(1, turns + 1):
            seen: dict[str, Any] = {"reference": states[turn], "previous_reference": states[turn - 1]}
            seen |= {"session": session, "turn": turn, "source": states[0], "current": made[turn]}
            history = tuple(zip(texts[: turn - 1], made[1:turn], strict=True))
            views.append(
                TurnView(**seen, judged=turn, protocol="free-running", previous=made[turn - 1], history=history)
            )
            views.append(TurnView(**seen, judged=turn, protocol="teacher-forced", previous=states[turn - 1]))
            views += [
                TurnView(**seen, judged=judged, protocol="single-shot", previous=states[0])
                for judged in range(1, turn + 1)
            ]
    return views


def base64_of(image: Image.Image, format: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return base64.b64encode(buffer.getvalue()).decode()


def plain_request(side: int = 8, **view: Any) -> dict[str, Any]:
    """What a trainer without a benchmark sends: an image before and after, and an instruction."""
    session = {"id": "lamp", "turns": [{"instruction": "Make the lamp red"}]}
    return {
        "images": [base64_of(Image.new("RGB", (side, side), color)) for color in ("grey", "red")],
        "views": [{"session": session, "source": 0, "previous": 0, "current": 1, **view}],
    }


class Redness:
    """A judge that looks at pixels and words alone: mean red, in [0, 1], if the instruction asks for it.

    Raises on what is wholly blue.
    """

    def __init__(self, version: int = 1, name: str = "redness") -> None:
        self.info = ScorerInfo(name, "instruction_following", 0, 1, success_threshold=0.9, scoring_version=version)
        self.sizes: list[int] = []

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        self.sizes.append(len(batch))
        return [self._score(view) for view in batch]

    def _score(self, view: TurnView) -> Score:
        if "red" not in view.instruction.instruction:
            return Score("not_applicable", reason="nobody asked for red")
        red, _, blue = (float(part) for part in np.asarray(view.current).mean((0, 1)))
        if blue == 255:
            raise MemoryError("blue is too much")
        return Score("ok", red / 255, parts={"red": red}, reason="how red it is", evidence={"judged": view.judged})


class Mortal(Redness):
    """Takes its whole process with it at call ``dies``."""

    def __init__(self, dies: int = 2) -> None:
        super().__init__(name="mortal")
        self.dies = dies

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        if len(self.sizes) + 1 == self.dies:
            os._exit(9)
        self.sizes.append(len(batch))
        return [Score("ok", 0.5) for _ in batch]
