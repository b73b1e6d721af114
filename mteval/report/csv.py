"""``leaderboard.csv``: every number of one or several runs, one number a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mteval.report.numbers import rounded
from mteval.report.runs import names

if TYPE_CHECKING:
    from mteval.store import RunFolder

COLUMNS = (
    *("model", "benchmark", "protocol", "scorer", "turn", "task_type", "metric"),
    *("value", "low", "high", "n", "n_missing", "method"),
)


def leaderboard(runs: Sequence[RunFolder]) -> pd.DataFrame:
    """The tidy table of the numbers of several runs.

    Returns:
        The columns :data:`COLUMNS`, ordered by model, benchmark, protocol, scorer, metric, task type and turn, whatever
        the order of the runs. Rates and differences are fractions (PSNR in dB), rounded to six decimals, so that the
        same numbers give the same bytes; ``turn`` is a nullable integer.

    Raises:
        UsageError: a run has not come to its end.
    """
    tables = [
        rounded(run.metrics()).assign(model=name, benchmark=run.config["benchmark"])
        for run, name in zip(runs, names(runs), strict=True)
    ]
    joined = pd.concat(tables, ignore_index=True)[list(COLUMNS)]
    order = ["model", "benchmark", "protocol", "scorer", "metric", "task_type", "turn"]
    return joined.sort_values(order, ignore_index=True, kind="stable", na_position="first")
