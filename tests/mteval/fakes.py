"""A tiny benchmark, scorer and editors, so that the run can be tested without a model.

An image has a row of pixels for every turn; the edit of turn t paints row t. Everything is reached as ``module:Class``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mteval.benchmarks.base import BenchmarkInfo
from mteval.editors.base import Blocked, EditError, EditorInfo, EditRequest, EditResult
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.sessions import Session, Turn

SIDE = 12


def paint(image: Image.Image, turn: int, value: int) -> Image.Image:
    """``image`` with row ``turn`` in one grey."""
    pixels = np.array(image)
    pixels[turn] = value
    return Image.fromarray(pixels)


class Rows:
    """Sessions whose turn t asks to paint row t; session 1 (if ``ragged``) has one turn less than the others."""

    def __init__(self, size: int = 6, references: bool = True, ragged: bool = False) -> None:
        self.size, self.references, self.ragged = size, references, ragged

    @property
    def info(self) -> BenchmarkInfo:
        return BenchmarkInfo(
            id="rows",
            variant="",
            version="1",
            task_types=("paint",),
            scorers=("tests.mteval.fakes:RowIsPainted",),
            has_references=self.references,
            size=self.size,
            max_turns=SIDE - 1,
        )

    def sessions(self, turns: int, limit: int | None = None) -> Sequence[Session]:
        made = []
        for index in range(min(limit or self.size, self.size)):
            count = turns - 1 if self.ragged and index == 1 else turns
            asked = tuple(Turn(f"paint row {turn}", "paint", target=100 + turn) for turn in range(1, count + 1))
            made.append(Session(f"s{index:03d}", f"source{index:03d}", asked, index))
        return made

    def source(self, session: Session) -> Image.Image:
        return Image.new("RGB", (SIDE, SIDE), (session.start, 0, 0))

    def reference(self, session: Session, turn: int) -> Image.Image | None:
        if not self.references:
            return None
        image = self.source(session)
        for done in range(1, turn + 1):
            image = paint(image, done, session.turns[done - 1].target)
        return image


class RowIsPainted:
    """1 where the judged row has its grey, within a tenth of the range."""

    def __init__(self, version: int = 1) -> None:
        self.info = ScorerInfo("row", "instruction_following", 0.0, 1.0, success_threshold=0.9, scoring_version=version)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return [self._score(view) for view in batch]

    def _score(self, view: TurnView) -> Score:
        row = np.asarray(view.current, dtype=float)[view.judged]
        value = float(1 - np.abs(row - view.instruction.target).mean() / 255)
        return Score("ok", round(value, 6), reason=f"row {view.judged}", evidence={"grey": float(row.mean())})


class Painter:
    """Paints the rows asked for, with a grey that depends a little on the seed; counts its calls."""

    def __init__(self, batch_size: int = 4, revision: str = "1") -> None:
        self.info = EditorInfo("painter", revision, batch_size=batch_size)
        self.calls: list[list[EditRequest]] = []

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def accepts(self, instruction: str) -> bool:
        return len(instruction) < 60

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        self.calls.append(list(requests))
        return [self.answer(request) for request in requests]

    def answer(self, request: EditRequest) -> EditResult:
        image = request.image
        for part in request.instruction.split(". "):
            row = int(part.split()[-1])
            image = paint(image, row, 100 + row + request.seed % 3)
        return EditResult(image, latency=0.5, cost=0.25)


class SlowPainter(Painter):
    """A painter that takes its time, as fast as MTEVAL_TEST_WAIT (seconds a call) says."""

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        time.sleep(float(os.environ.get("MTEVAL_TEST_WAIT", "0")))
        return super().edit(requests)


class Faulty(Painter):
    """Gives what ``faults`` (by session and turn) says instead of an image, ``times`` times a turn (0 = always)."""

    def __init__(
        self, faults: dict[tuple[str, int], EditError | Exception | EditResult], times: int = 0, batch_size: int = 4
    ) -> None:
        super().__init__(batch_size)
        self.faults, self.times = faults, times
        self.given: dict[tuple[str, int], int] = {}

    def answer(self, request: EditRequest) -> EditResult:
        key = (request.session, request.turn)
        self.given[key] = self.given.get(key, 0) + 1
        fault = self.faults.get(key)
        if fault is None or 0 < self.times < self.given[key]:
            return super().answer(request)
        if isinstance(fault, EditResult):
            return fault
        if isinstance(fault, EditError):
            return EditResult(error=fault, cost=0.25)
        raise fault


class Refuser(Painter):
    """Blocks every second turn: reached from the command line."""

    def answer(self, request: EditRequest) -> EditResult:
        return EditResult(error=Blocked("not that")) if request.turn % 2 == 0 else super().answer(request)


class Unloadable(Painter):
    """Fails a test that was to stop before any model is loaded."""

    def __init__(self) -> None:
        super().__init__()
        raise AssertionError("the editor was built")
