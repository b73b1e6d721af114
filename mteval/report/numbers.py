"""The numbers of a page: looked up in the metrics table and written out, never computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from mteval.metrics import ALL, Label

if TYPE_CHECKING:
    import pandas as pd

DECIMALS = 6
"""Fractions are rounded to this many decimals, in the CSV file and on the page alike."""

_FLOATS = ["value", "low", "high", "worst", "best"]


class Number(NamedTuple):
    """One row of the metrics table, see :class:`mteval.stats.Estimate`; NaN where there is none."""

    value: float
    low: float
    high: float
    n: int
    n_missing: int
    method: str
    worst: float
    best: float


class Unit(NamedTuple):
    """How a number is written: ``value * scale`` in the format ``form``. ``name`` follows it in words."""

    name: str
    scale: float
    form: str = ".1f"

    def text(self, value: float) -> str:
        """The number alone, an en dash where there is none."""
        if math.isnan(value):
            return "–"
        shown = format(value * self.scale, self.form)
        return shown.replace("-", "−") if float(shown) else shown.replace("-", "")

    def interval(self, number: Number) -> str:
        """``[low, high]``, empty where the number has no interval."""
        if math.isnan(number.low):
            return ""
        return f"[{self.text(number.low)}, {self.text(number.high)}]"

    def full(self, number: Number) -> str:
        """The number with all that is known of it, in words."""
        parts = [f"{self.text(number.value)} {self.name}"]
        if not math.isnan(number.low):
            parts.append(f"95 % interval {self.text(number.low)} to {self.text(number.high)}")
        parts.append(f"n = {number.n}")
        if number.n_missing:
            parts.append(f"{number.n_missing} missing")
        return ", ".join(parts)


PERCENT = Unit("%", 100)
POINTS = Unit("points", 100)
DECIBEL = Unit("dB", 1)
OWN = Unit("in the scorer's unit", 1, ".4g")
"""Of values whose range is the scorer's affair: nothing is known of their size."""


def unit_of(metric: str) -> Unit:
    """The unit in which pages and tables show a metric."""
    if metric == "reference_psnr":
        return DECIBEL
    if metric in ("visual_quality", "visual_quality_delta", "trajectory_score"):
        return OWN
    return POINTS if metric.startswith(("exposure_bias", "decay", "single_shot_gap")) else PERCENT


class Numbers:
    """A metrics table by label; rows without data are left out."""

    def __init__(self, table: pd.DataFrame) -> None:
        known = rounded(table[table["value"].notna()])
        turns = [
            None if missing else int(turn) for turn, missing in zip(known["turn"], known["turn"].isna(), strict=True)
        ]
        places = zip(known["protocol"], known["scorer"], turns, known["task_type"], known["metric"], strict=True)
        rows = known[list(Number._fields)].itertuples(index=False, name=None)
        self._numbers = {Label(*place): Number(*row) for place, row in zip(places, rows, strict=True)}

    def __iter__(self) -> Iterator[tuple[Label, Number]]:
        return iter(self._numbers.items())

    def get(
        self, protocol: str, scorer: str, metric: str, turn: int | None = None, task_type: str = ALL
    ) -> Number | None:
        """One number, None where the run has none."""
        return self._numbers.get(Label(protocol, scorer, turn, task_type, metric))

    def by_turn(self, protocol: str, scorer: str, metric: str, task_type: str = ALL) -> dict[int, Number]:
        """Turn -> number, of the turns that have one."""
        return {
            turn: number
            for (of, by, turn, kind, name), number in self
            if turn is not None and (of, by, kind, name) == (protocol, scorer, task_type, metric)
        }


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """A metrics table with :data:`DECIMALS` decimals and no negative zero."""
    columns = [name for name in _FLOATS if name in table]
    return table.assign(**{name: table[name].round(DECIMALS) + 0.0 for name in columns})
