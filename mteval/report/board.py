"""The leaderboard of a page: one row a run, best first, each number with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from mteval import compare
from mteval.errors import UsageError
from mteval.metrics import RANKED_FROM, coverage_of, score_table, turn_table
from mteval.report.charts.interval import interval
from mteval.report.numbers import PERCENT, POINTS, Number, Unit
from mteval.report.runs import FORCED, FREE, PAIRED, Shown

_BOTH = "following+consistency"


class Measured(NamedTuple):
    """A column: its symbol, what it says in a few words, and where its number stands in the metrics table."""

    symbol: str
    words: str
    protocol: str
    scorer: str
    metric: str
    unit: Unit


MEASURED = (
    Measured("S", "every edit so far done", FREE, "following", "turn_success", PERCENT),
    Measured("M", "this turn's edit done", FREE, "following", "marginal_success", PERCENT),
    Measured("CC", "untouched content kept", FREE, "consistency", "content_consistency", PERCENT),
    Measured("O", "overall, √(S · CC)", FREE, _BOTH, "overall", PERCENT),
    Measured("TF", "edit done from a clean input", FORCED, "following", "marginal_success", PERCENT),
    Measured("EB", "exposure bias, TF − M", PAIRED, "following", "exposure_bias", POINTS),
)


class Cell(NamedTuple):
    """A number as the table shows it, each part already in words."""

    value: str
    interval: str
    bounds: str
    bar: Markup


class Row(NamedTuple):
    """One run; ``group`` are the letters of its tie group, ``unranked`` says why it has no place."""

    run: Shown
    place: int | None
    group: str
    cells: list[Cell | None]
    n: int
    n_missing: int
    unranked: str


class Board(NamedTuple):
    """The table at turn ``turn``; ``note`` says how the tie groups were found, or why there are none."""

    turn: int
    rows: list[Row]
    note: str


def board(runs: Sequence[Shown]) -> Board:
    """The leaderboard at the last turn that all runs have."""
    turn = min(run.turns for run in runs)
    found = {run.name: [number_of(run, measured, turn) for measured in MEASURED] for run in runs}
    ranked = {run.name: _ranked(run) for run in runs}
    letters, note = _groups([run for run in runs if ranked[run.name]])
    order = sorted(runs, key=lambda run: (not ranked[run.name], -_value(found[run.name][0]), run.name))
    reach = _reach([numbers[-1] for numbers in found.values()])
    rows = []
    for place, run in enumerate(order, start=1):
        numbers = found[run.name]
        counted = next((number for number in numbers if number), None)
        cells = [
            cell(number, measured.unit, (-reach, reach) if measured.metric == "exposure_bias" else (0.0, 1.0))
            for number, measured in zip(numbers, MEASURED, strict=True)
        ]
        has_place = ranked[run.name] and numbers[0] is not None
        rows.append(
            Row(
                run,
                place if has_place else None,
                letters.get(run.name, ""),
                cells,
                counted.n if counted else 0,
                counted.n_missing if counted else 0,
                "" if ranked[run.name] else f"not ranked: coverage under {100 * RANKED_FROM:.0f} %",
            )
        )
    return Board(turn, rows, note)


def number_of(run: Shown, measured: Measured, turn: int) -> Number | None:
    """The number of a column in a run."""
    scorers = {"following": run.following, "consistency": run.consistency, _BOTH: f"{run.following}+{run.consistency}"}
    return run.numbers.get(measured.protocol, scorers[measured.scorer], measured.metric, turn)


def cell(number: Number | None, unit: Unit, bounds: tuple[float, float]) -> Cell | None:
    """A number in words, with its bar."""
    if number is None:
        return None
    limits = ""
    if number.n_missing and not math.isnan(number.worst):
        limits = f"{unit.text(number.worst)} to {unit.text(number.best)}"
    return Cell(unit.text(number.value), unit.interval(number), limits, interval(number, unit, bounds))


def _ranked(run: Shown) -> bool:
    return not coverage_of(run.table, FREE) < RANKED_FROM


def _value(number: Number | None) -> float:
    return number.value if number else -1.0


def _reach(numbers: Sequence[Number | None]) -> float:
    """Where the bars of exposure bias end, on both sides: at a multiple of ten points."""
    ends = [abs(end) for number in numbers if number for end in (number.value, number.low, number.high)]
    return math.ceil(max([0.1, *(end for end in ends if not math.isnan(end))]) * 10 - 1e-9) / 10


def _groups(runs: Sequence[Shown]) -> tuple[dict[str, str], str]:
    """The letters of the tie groups, and one sentence on them."""
    if len(runs) < 2:
        return {}, ""
    tables = {
        run.name: compare.Tables(turn_table(run.folder.turn_records()), score_table(run.folder.score_records()))
        for run in runs
    }
    try:
        table, _ = compare.rank(tables, runs[0].following)
    except UsageError as error:
        return {}, f"No tie groups: {error}."
    return dict(zip(table["model"], table["group"], strict=True)), (
        "Models that share a letter are not distinguishable: paired comparisons of S on the sessions that both have, "
        "at 5 % with Holm's correction."
    )
