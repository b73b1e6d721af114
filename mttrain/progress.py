"""Progress bars with an estimate of the time left; plain lines, now and then, where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY = 30.0  # seconds, without a terminal


class Bars:
    """One bar a stage: ``update(stage, done, total, figures)``."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        told = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, figures=told)
        self._progress.update(self._tasks[stage], completed=done, figures=told)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._last_line > _LINE_EVERY or done == total):
            self._last_line = now
            print(f"{stage} {done}/{total}  {told}", flush=True)
