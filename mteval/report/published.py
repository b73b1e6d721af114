"""Numbers that others have published, in the columns of ``leaderboard.csv``: shown beside one's own, never ranked.

They have no interval, and neither images nor verdicts are known of them, so they can be compared with by eye only. The
figures stand, with their sources, in ``published_<benchmark>.json`` beside this file.
"""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

import pandas as pd

from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.report.csv import COLUMNS
from mteval.report.numbers import DECIMALS

BENCHMARKS = ("edival",)
METHOD = "published"
"""What stands in the column ``method``: by whom an interval would have been made."""

_METRICS = {
    "IF": ("turn_success", "edival-if"),
    "CC": ("content_consistency", "edival-cc"),
    "O": ("overall", "edival-if+edival-cc"),
}


def rows(benchmark: str) -> pd.DataFrame:
    """Every published number of a benchmark.

    Returns:
        The columns of :data:`mteval.report.csv.COLUMNS`, in the order of ``leaderboard.csv``. Values are fractions;
        low, high, n and n_missing are empty.

    Raises:
        UsageError: nothing is known of the benchmark.
    """
    told = _told(benchmark)
    found = [
        (model, told["benchmark"], told["protocol"], scorer, turn, "all", metric, round(value / 100, DECIMALS))
        for model, numbers in told["models"].items()
        for symbol, (metric, scorer) in _METRICS.items()
        for turn, value in enumerate(numbers.get(symbol, ()), start=1)
        if value is not None
    ]
    table = pd.DataFrame(found, columns=list(COLUMNS[: COLUMNS.index("value") + 1]))
    table = table.assign(low=math.nan, high=math.nan, n=None, n_missing=None, method=METHOD)
    table = table.astype({"turn": "Int64", "n": "Int64", "n_missing": "Int64"})[list(COLUMNS)]
    return table.sort_values(["model", "scorer", "metric", "turn"], ignore_index=True)


def sources(benchmark: str) -> dict[str, str]:
    """Model -> where its numbers were read.

    Raises:
        UsageError: nothing is known of the benchmark.
    """
    told = _told(benchmark)
    return {model: told["sources"][numbers["source"]] for model, numbers in told["models"].items()}


def _told(benchmark: str) -> dict[str, Any]:
    if benchmark not in BENCHMARKS:
        raise UsageError(f"no published numbers of '{benchmark}': {nearest(benchmark, list(BENCHMARKS))}")
    text = files("mteval.report").joinpath(f"published_{benchmark}.json").read_text("utf-8")
    told: dict[str, Any] = json.loads(text)
    return told
