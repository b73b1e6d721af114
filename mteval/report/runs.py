"""Runs as the reports show them: named apart, grouped by what can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mteval.metrics import coverage_of
from mteval.report.numbers import Numbers
from mteval.sessions import PROTOCOLS

if TYPE_CHECKING:
    import pandas as pd

    from mteval.scorers.base import Measure
    from mteval.store import RunFolder

FREE, FORCED, SINGLE = PROTOCOLS
PAIRED = "paired"


@dataclass(frozen=True)
class Shown:
    """One run on a page.

    Attributes:
        folder: where its records and images are.
        name: the model, with the folder's name where two runs would read the same.
        index: place among the runs of its chapter; picks colour, marker and dash of its lines.
    """

    folder: RunFolder
    name: str
    index: int = 0

    @cached_property
    def config(self) -> dict[str, Any]:
        """run.json."""
        return self.folder.config

    @cached_property
    def table(self) -> pd.DataFrame:
        """The metrics table."""
        return self.folder.metrics()

    @cached_property
    def numbers(self) -> Numbers:
        """The metrics table by label."""
        return Numbers(self.table)

    @property
    def turns(self) -> int:
        """T."""
        return int(self.config["turns"])

    @property
    def protocols(self) -> list[str]:
        """In the order of :data:`mteval.sessions.PROTOCOLS`."""
        return [protocol for protocol in PROTOCOLS if protocol in self.config["protocols"]]

    @property
    def coverage(self) -> float:
        """Of all protocols; NaN where nothing is scored."""
        return coverage_of(self.table)

    def scorer(self, measure: Measure) -> str:
        """The first scorer of a measure, '' where the run has none: what the page shows; the CSV file has them all."""
        return next((name for name, info in self.config["scorers"].items() if info["measures"] == measure), "")

    @property
    def following(self) -> str:
        """The instruction-following scorer."""
        return self.scorer("instruction_following")

    @property
    def consistency(self) -> str:
        """The content-consistency scorer."""
        return self.scorer("content_consistency")


def names(runs: Sequence[RunFolder]) -> list[str]:
    """The model of each run, with as much of its folder as it takes to tell two runs of one benchmark apart."""
    keys = [(run.config["model"], run.config["benchmark"]) for run in runs]
    found = [model for model, _ in keys]
    for known in (lambda path: path.name, str):
        seen = Counter((name, benchmark) for name, (_, benchmark) in zip(found, keys, strict=True))
        found = [
            name if seen[name, benchmark] == 1 else f"{model} [{known(run.path)}]"
            for name, (model, benchmark), run in zip(found, keys, runs, strict=True)
        ]
    return found


def chapters(runs: Sequence[RunFolder], measures: Sequence[Measure] = ("instruction_following",)) -> list[list[Shown]]:
    """The runs grouped by benchmark, its version and the scorers of ``measures``: only these can be compared."""
    groups: dict[tuple[str, ...], list[Shown]] = {}
    for folder, name in zip(runs, names(runs), strict=True):
        shown = Shown(folder, name)
        scorers = [shown.scorer(measure) for measure in measures]
        judges = [shown.config["scorers"].get(scorer, {}) for scorer in scorers]
        meanings = [f"{judge.get('scoring_version')} {judge.get('args')}" for judge in judges]
        key = (shown.config["benchmark"], shown.config["benchmark_info"]["version"], *scorers, *meanings)
        groups.setdefault(key, []).append(shown)
    return [[Shown(shown.folder, shown.name, index) for index, shown in enumerate(group)] for group in groups.values()]
