"""Which charts a page has: from the numbers of the runs of a chapter to titled figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from mteval.report.charts.bias import PARTS, bias
from mteval.report.charts.heat import Column, heat
from mteval.report.charts.lines import Series, lines
from mteval.report.charts.svg import drawing, line, marker, style
from mteval.report.numbers import DECIBEL, OWN, PERCENT, POINTS, Number, Unit
from mteval.report.runs import FREE, PAIRED, Shown

_RATE = (0.0, 1.0)


class Legend(NamedTuple):
    """One entry: its name and a small drawing."""

    name: str
    drawing: Markup


class Figure(NamedTuple):
    """A chart with its title, its unit in words, its legend, and its numbers as a table."""

    title: str
    unit: str
    legend: list[Legend]
    chart: Markup
    head: list[str]
    rows: list[list[str]]


def success(runs: Sequence[Shown]) -> list[Figure]:
    """M_t under each protocol, a figure a run, and S_t of all."""
    made = []
    for run in runs:
        title = "This turn's edit done" if len(runs) == 1 else f"This turn's edit done: {run.name}"
        series = _by_protocol(run, lambda run: run.following, "marginal_success")
        made += _lines(title, "% of sessions, M", series, PERCENT, _RATE)
    series = _by_run_or_protocol(runs, lambda run: run.following, "turn_success")
    return made + _lines("Every edit so far done", "% of sessions, S", series, PERCENT, _RATE)


def exposure(runs: Sequence[Shown]) -> list[Figure]:
    """EB_t with its two parts, a figure a run."""
    made = []
    for run in runs:
        total, *parts = (
            run.numbers.by_turn(PAIRED, run.following, f"exposure_bias{part}") for part in ("", "_drift", "_cascade")
        )
        if total:
            title = "Success lost to its own history" if len(runs) == 1 else f"Lost to its own history: {run.name}"
            by_name = dict(zip(PARTS, parts, strict=True))
            words = f"Exposure bias of {run.name} by turn"
            legend = [Legend(part, _swatch(part)) for part in PARTS] + [Legend("both, 95 % interval", _dot())]
            columns = {"exposure bias": total, **by_name}
            chart = bias(total, by_name, words)
            made.append(Figure(title, "points of success, EB", legend, chart, *_by_turn(columns, POINTS)))
    return made


def consistency(runs: Sequence[Shown]) -> list[Figure]:
    """CC_t, CC_{t|t-1} of one run, and the reference drift curve."""
    cc = _by_run_or_protocol(runs, lambda run: run.consistency, "content_consistency")
    made = _lines("Kept since the first image", "% alike, CC", cc, PERCENT, None)
    step = _by_run_or_protocol(runs, lambda run: run.consistency, "content_consistency_step")
    made += _lines("Kept in this turn alone", "% alike, from the image before", step, PERCENT, None)
    psnr = _by_run_or_protocol(runs, lambda run: run.scorer("reference_psnr"), "reference_psnr")
    return made + _lines("Distance to the reference image", "PSNR in dB, higher is nearer", psnr, DECIBEL, None)


def quality(runs: Sequence[Shown]) -> list[Figure]:
    """Visual quality, and what long sessions are judged by: SR@k and CR@k."""
    seen = _by_run_or_protocol(runs, lambda run: run.scorer("visual_quality"), "visual_quality")
    made = _lines("Visual quality", "in the unit of the scorer, without a reference", seen, OWN, None)
    alive = _by_run_or_protocol(runs, lambda run: run.scorer("survival"), "survival")
    made += _lines("Every turn so far survives", "% of sessions, SR", alive, PERCENT, _RATE)
    gone = _by_run_or_protocol(runs, lambda run: run.scorer("collapse"), "collapse")
    return made + _lines("Two turns in a row collapsed", "% of sessions, CR", gone, PERCENT, _RATE)


def by_type(runs: Sequence[Shown]) -> list[Figure]:
    """Rates by task type: of one run by protocol and by turn, of several by run and each by turn."""
    if len(runs) > 1:
        columns = [Column(run.name, None, run.index, _types(run, FREE, None)) for run in runs]
        made = _heat("Every turn, by model", columns, [_key(run.name, run.index) for run in runs])
        return made + [figure for run in runs for figure in _by_type_and_turn(run, f": {run.name}")]
    (run,) = runs
    protocols = [Column(protocol, protocol, 0, _types(run, protocol, None)) for protocol in run.protocols]
    return _heat("Every turn, by protocol", protocols, []) + _by_type_and_turn(run, "")


def _by_type_and_turn(run: Shown, of: str) -> list[Figure]:
    first = run.protocols[0]
    turns = [Column(f"turn {turn}", str(turn), 0, _types(run, first, turn)) for turn in range(1, run.turns + 1)]
    return _heat(f"By turn, {first}{of}", turns, [])


def _by_protocol(run: Shown, scorer: Callable[[Shown], str], metric: str) -> list[Series]:
    found = [
        Series(protocol, index, run.numbers.by_turn(protocol, scorer(run), metric))
        for index, protocol in enumerate(run.protocols)
    ]
    return [series for series in found if series.numbers]


def _by_run_or_protocol(runs: Sequence[Shown], scorer: Callable[[Shown], str], metric: str) -> list[Series]:
    """A line a protocol for one run; a line a run, free-running, for several."""
    if len(runs) == 1:
        return _by_protocol(runs[0], scorer, metric)
    found = [Series(run.name, run.index, run.numbers.by_turn(FREE, scorer(run), metric)) for run in runs]
    return [series for series in found if series.numbers]


def _lines(
    title: str, unit_words: str, series: Sequence[Series], unit: Unit, bounds: tuple[float, float] | None
) -> list[Figure]:
    if not series:
        return []
    legend = [_key(one.name, one.style) for one in series]
    chart = lines(series, f"{title} by turn: {', '.join(one.name for one in series)}", unit, bounds)
    table = _by_turn({one.name: one.numbers for one in series}, unit)
    return [Figure(title, unit_words, legend, chart, *table)]


def _by_turn(columns: Mapping[str, Mapping[int, Number]], unit: Unit) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table behind a chart."""
    turns = sorted({turn for numbers in columns.values() for turn in numbers})
    rows = [[str(turn), *(_written(numbers.get(turn), unit) for numbers in columns.values())] for turn in turns]
    return ["turn", *columns], rows


def _written(number: Number | None, unit: Unit) -> str:
    return f"{unit.text(number.value)} {unit.interval(number)}".strip() if number else "–"


def _types(run: Shown, protocol: str, turn: int | None) -> dict[str, Number]:
    found = (
        (task_type, run.numbers.get(protocol, run.following, "marginal_success", turn, task_type))
        for task_type in run.config["benchmark_info"]["task_types"]
    )
    return {task_type: number for task_type, number in found if number}


def _heat(title: str, columns: Sequence[Column], legend: list[Legend]) -> list[Figure]:
    filled = [column for column in columns if column.numbers]
    types = list(dict.fromkeys(task_type for column in filled for task_type in column.numbers))
    if not filled:
        return []
    chart = heat(types, filled, f"{title}: success by type of edit")
    rows = [
        [task_type.replace("_", " "), *(_written(column.numbers.get(task_type), PERCENT) for column in filled)]
        for task_type in types
    ]
    return [Figure(title, "% of edits done", legend, chart, ["type of edit", *(c.name for c in filled)], rows)]


def _key(name: str, index: int) -> Legend:
    stroke = Markup('<g class="{}">{}{}</g>').format(style(index), line(0, 6, 24, 6, "line"), marker(index, 12, 6))
    return Legend(name, drawing(24, 12, name, [stroke], "key"))


def _swatch(part: str) -> Markup:
    return drawing(12, 12, part, [Markup('<rect width="12" height="12" class="part {}"/>').format(part)], "key small")


def _dot() -> Markup:
    return drawing(
        12,
        12,
        "total",
        [line(6, 0, 6, 12, "whisker"), Markup('<circle cx="6" cy="6" r="3" class="dot"/>')],
        "key small",
    )
