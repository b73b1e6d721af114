"""The leaderboard of a page or a terminal: one row a run, best first, each number with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from mteval import compare
from mteval.compare import COMPARED
from mteval.errors import UsageError
from mteval.metrics import RANKED_FROM, coverage_of, score_table, turn_table
from mteval.registry import nearest
from mteval.report.charts.interval import interval
from mteval.report.numbers import OWN, POINTS, Number, Unit, unit_of
from mteval.report.runs import FORCED, FREE, PAIRED, Shown

if TYPE_CHECKING:
    import pandas as pd

    from mteval.scorers.base import Measure


class Measured(NamedTuple):
    """A column: its symbol, what it says in a few words, and where its number stands in the metrics table."""

    symbol: str
    words: str
    protocol: str
    metric: str

    @property
    def unit(self) -> Unit:
        """How its numbers are written."""
        return unit_of(self.metric)

    def turn(self, turn: int) -> int | None:
        """``turn``, or None where the metric is one number a rollout."""
        return None if self.metric == "trajectory_score" else turn

    def scorer(self, run: Shown) -> str:
        """The scorers of a run that it is made of, as the metrics table names them; '' where one is not there."""
        scorers = [run.scorer(measure) for measure in COMPARED[self.metric].made_of]
        return "+".join(scorers) if all(scorers) else ""


MEASURED = (
    Measured("S", "every edit so far done", FREE, "turn_success"),
    Measured("M", "this turn's edit done", FREE, "marginal_success"),
    Measured("CC", "untouched content kept", FREE, "content_consistency"),
    Measured("O", "overall, √(S · CC)", FREE, "overall"),
    Measured("TF", "edit done from a clean input", FORCED, "marginal_success"),
    Measured("EB", "exposure bias, TF − M", PAIRED, "exposure_bias"),
)
"""The columns of every board."""

ALSO_MEASURED = (
    Measured("SR", "every turn so far survives", FREE, "survival"),
    Measured("CR", "two turns in a row collapsed", FREE, "collapse"),
    Measured("VQ", "visual quality", FREE, "visual_quality"),
    Measured("ΔVQ", "quality moved since the start", FREE, "visual_quality_delta"),
    Measured("TR", "the whole rollout", FREE, "trajectory_score"),
)
"""Those of boards whose runs have the scorers."""

_RANKED_BY = ("turn_success", "survival", "content_consistency", "trajectory_score")


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
    """The table at turn ``turn``.

    Attributes:
        by: the column that ranks. note: how the tie groups were found, or why there are none.
        pairs: the comparisons behind them, as :func:`mteval.compare.rank` gives them; None where there are none.
    """

    turn: int
    by: Measured
    columns: tuple[Measured, ...]
    rows: list[Row]
    note: str
    pairs: pd.DataFrame | None

    @property
    def own_units(self) -> str:
        """The symbols of the columns that are in a unit of their scorers."""
        return ", ".join(column.symbol for column in self.columns if column.unit == OWN)


def unequal(runs: Sequence[Shown], turn: int) -> list[str]:
    """Where the runs of a board differ in length, a sentence each: turns, sessions."""
    said = []
    longer = [run.name for run in runs if run.turns > turn]
    if longer:
        said.append(f"Turn {turn} is the last that all have; {', '.join(longer)} went on.")
    sizes = sorted({int(run.config["limit"]) for run in runs})
    if len(sizes) > 1:
        said.append(f"The runs hold {sizes[0]} to {sizes[-1]} sessions: only the ties are of the same ones.")
    return said


def board(runs: Sequence[Shown], by: str | None = None) -> Board:
    """The leaderboard at the last turn that all runs have.

    Args:
        by: the metric that ranks, one of :data:`mteval.compare.COMPARED`; None = :func:`usual_ranking`.

    Raises:
        UsageError: there is no such metric.
    """
    turn = min(run.turns for run in runs)
    ranking = ranked_by(by or usual_ranking(runs))
    columns = _columns(runs, ranking)
    found = {run.name: [number_of(run, column, turn) for column in columns] for run in runs}
    values = {run.name: number_of(run, ranking, turn) for run in runs}
    unranked = {run.name: _unranked(run, ranking, values[run.name]) for run in runs}
    letters, pairs, note = _groups([run for run in runs if not unranked[run.name]], ranking)
    sign = 1 if COMPARED[ranking.metric].lower_is_better else -1
    order = sorted(runs, key=lambda run: (bool(unranked[run.name]), sign * _value(values[run.name]), run.name))
    reach = [_reach(column, [numbers[k] for numbers in found.values()]) for k, column in enumerate(columns)]
    rows = []
    for place, run in enumerate(order, start=1):
        numbers = found[run.name]
        counted = values[run.name] or next((number for number in numbers if number), None)
        cells = [cell(number, column.unit, ends) for number, column, ends in zip(numbers, columns, reach, strict=True)]
        rows.append(
            Row(
                run,
                None if unranked[run.name] else place,
                letters.get(run.name, ""),
                cells,
                counted.n if counted else 0,
                counted.n_missing if counted else 0,
                unranked[run.name],
            )
        )
    return Board(turn, ranking, columns, rows, note, pairs)


def usual_ranking(runs: Sequence[Shown]) -> str:
    """The first of success, survival, consistency and whole rollouts that the runs have a scorer for."""
    return next((metric for metric in _RANKED_BY if ranked_by(metric).scorer(runs[0])), _RANKED_BY[0])


def ranked_by(metric: str) -> Measured:
    """The column of a metric that can rank.

    Raises:
        UsageError: there is none of that name.
    """
    if metric not in COMPARED:
        raise UsageError(f"runs cannot be ranked by '{metric}': {nearest(metric, list(COMPARED))}")
    words = metric.replace("_", " ")
    other = Measured(words, words, COMPARED[metric].protocol, metric)
    known = [column for column in MEASURED + ALSO_MEASURED if column.protocol == other.protocol]
    return next((column for column in known if column.metric == metric), other)


def number_of(run: Shown, measured: Measured, turn: int) -> Number | None:
    """The number of a column in a run."""
    return run.numbers.get(measured.protocol, measured.scorer(run), measured.metric, measured.turn(turn))


def _columns(runs: Sequence[Shown], ranking: Measured) -> tuple[Measured, ...]:
    usual = MEASURED if any(run.following or run.consistency for run in runs) else ()
    also = [column for column in ALSO_MEASURED if any(column.scorer(run) for run in runs)]
    columns = (*usual, *also)
    return columns if ranking in columns else (ranking, *columns)


def cell(number: Number | None, unit: Unit, bounds: tuple[float, float]) -> Cell | None:
    """A number in words, with its bar."""
    if number is None:
        return None
    limits = ""
    if number.n_missing and not math.isnan(number.worst + number.best):
        limits = f"{unit.text(number.worst)} to {unit.text(number.best)}"
    return Cell(unit.text(number.value), unit.interval(number), limits, interval(number, unit, bounds))


def _unranked(run: Shown, ranking: Measured, number: Number | None) -> str:
    if coverage_of(run.table, FREE) < RANKED_FROM:
        return f"not ranked: coverage under {100 * RANKED_FROM:.0f} %"
    return "" if number else f"not ranked: no {ranking.metric}"


def _value(number: Number | None) -> float:
    return number.value if number else 0.0


def _reach(column: Measured, numbers: Sequence[Number | None]) -> tuple[float, float]:
    """The values at the ends of a column's bars: 0 to 1, around 0 for differences, what there is for other units."""
    known = [end for number in numbers if number for end in (number.value, number.low, number.high)]
    ends = [end for end in known if not math.isnan(end)]
    if column.unit == POINTS:
        reach = math.ceil(max([0.1, *map(abs, ends)]) * 10 - 1e-9) / 10  # a multiple of ten points
        return -reach, reach
    if column.unit.scale == 1 and ends:
        return min(ends), max(max(ends), min(ends) + 1e-9)
    return 0.0, 1.0


def _groups(runs: Sequence[Shown], ranking: Measured) -> tuple[dict[str, str], pd.DataFrame | None, str]:
    """The letters of the tie groups, the pairs behind them, and one sentence on them."""
    if len(runs) < 2:
        return {}, None, ""
    tables = {
        run.name: compare.Tables(turn_table(run.folder.turn_records()), score_table(run.folder.score_records()))
        for run in runs
    }
    made_of = COMPARED[ranking.metric].made_of
    measures: dict[str, Measure] = {runs[0].scorer(measure): measure for measure in made_of}
    try:
        table, pairs = compare.rank(tables, measures, ranking.metric)
    except UsageError as error:
        return {}, None, f"No tie groups: {error}."
    note = (
        "Models that share a letter are not distinguishable: paired comparisons of "
        f"{ranking.symbol} on the sessions that both have, at 5 % with Holm's correction."
    )
    return dict(zip(table["model"], table["group"], strict=True)), pairs, note
