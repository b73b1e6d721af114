"""What the terminal shows: a live progress bar while a run goes on, tables at its end."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Eta
from rich.table import Table

from mteval.store import LEADERBOARD, REPORT, Judging

if TYPE_CHECKING:
    import pandas as pd

    from mteval.evaluation import Run

_QUIET = 5.0  # seconds between plain lines
_ALSO = (
    ("turn_success", "all so far\nfree-\nrunning"),
    ("exposure_bias", "exposure\nbias"),
    ("survival", "survive\nso far"),
    ("collapse", "collapsed\nso far"),
)
_WIDE = 110  # columns that a table with one more digit needs


class Bar:
    """Called with (stage, done, total): a bar with ETA on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.console = Console(stderr=True)
        self.tasks: dict[str, TaskID] = {}
        self.printed = 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Eta())
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(f"{self.label}: {stage}", total=total)
        self.progress.update(self.tasks[stage], completed=done)
        now = time.monotonic()
        if not self.console.is_terminal and (done == total or now - self.printed > _QUIET):
            self.printed = now
            print(f"{self.label}: {stage} {done}/{total}", file=sys.stderr, flush=True)


def summary(runs: Sequence[Run]) -> None:
    """Print success by turn under each protocol, the exposure bias, and where the report is."""
    console = Console()
    digits = 1 if console.width >= _WIDE else 0
    for run in runs:
        config = run.folder.config
        metrics = run.metrics
        title = f"{config['model']} on {config['benchmark']}: {config['limit']} sessions, points with 95 % intervals"
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("turn", justify="right", no_wrap=True)
        shown = [
            (
                f"success\n{_narrow(protocol)}",
                metrics[(metrics.metric == "marginal_success") & (metrics.protocol == protocol)],
            )
            for protocol in config["protocols"]
        ]
        for metric, words in _ALSO:
            shown.append(
                (words, metrics[(metrics.metric == metric) & metrics.protocol.isin(["free-running", "paired"])])
            )
        shown = [(words, rows[rows.task_type == "all"]) for words, rows in shown]
        shown = [(words, rows) for words, rows in shown if not rows.empty]
        for words, _ in shown:
            table.add_column(words, justify="right", no_wrap=True)
        for turn in range(1, config["turns"] + 1):
            table.add_row(str(turn), *(cell(rows[rows.turn == turn], digits) for _, rows in shown))
        if shown:
            console.print(title, soft_wrap=True)
            console.print(table)
        for judge, told in _judges(run).items():
            console.print(f"judge {judge}: {told}", soft_wrap=True)
        console.print(f"report       {run.path / REPORT}\nleaderboard  {run.path / LEADERBOARD}", soft_wrap=True)


def _judges(run: Run) -> dict[str, str]:
    """What was asked of each judge over all passes, in words."""
    passes: dict[str, list[Judging]] = defaultdict(list)
    for one in run.folder.judgings():
        passes[one.judge].append(one)
    return {
        judge: f"{sum(one.calls for one in all_of):,} calls, {sum(one.hits for one in all_of):,} replies from the cache"
        + (f", ${cost:.2f}" if (cost := sum(one.cost for one in all_of)) else "")
        for judge, all_of in passes.items()
    }


def _narrow(protocol: str) -> str:
    return protocol.replace("-", "-\n")


def cell(rows: pd.DataFrame, digits: int) -> str:
    """One estimate in points, with its interval."""
    if rows.empty or rows["value"].isna().all():
        return "-"
    row: Any = rows.iloc[0]
    value, low, high = (round(100 * row[name], digits) + 0.0 for name in ("value", "low", "high"))  # no negative zero
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
