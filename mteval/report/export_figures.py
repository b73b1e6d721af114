"""The figures of a paper: the numbers of a chapter drawn by matplotlib, as PNG and SVG, one or two columns wide."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mteval.metrics import BANNER_BELOW
from mteval.report.export_tables import one_line
from mteval.report.numbers import PERCENT, Number
from mteval.report.runs import FREE, PAIRED, Shown
from mteval.sessions import PROTOCOLS

WIDTHS = {"single": 3.3, "double": 6.9}
"""Inches: the text column of a paper, and both."""
DPI = 300
KINDS = ("png", "svg")

_CONTROLS = ("identity", "codec", "oracle", "synthetic")
_SHORTEST = 5.0  # per cent or points, the least that an axis of values shows
_PANELS = {"single": 2, "double": 4}  # side by side
_LETTER = 0.062  # inches, the width of a letter in a legend
_LINE = 0.145  # inches, the height of a line of a legend

# Okabe and Ito's palette, which colour-blind readers can tell apart; the dashes and markers do without any colour.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b25690", "#e69f00", "#3d9cd2", "#1a1f26")
_GREYS = ("#555c66", "#878f99")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1, 1.2)), (0, (5, 1.4, 1, 1.4)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_CONTROL_DASHES: tuple[Any, ...] = ((0, (2, 1.5)), (0, (4, 1.2, 1, 1.2, 1, 1.2)))
_CONTROL_MARKERS = ("x", "+")
# Of the exposure bias, as a legend tells them: end of the metric's name, fill, hatch.
_PARTS = {
    "drift: every edit so far right": ("drift", "#e69f00", ""),
    "cascade: an earlier edit wrong": ("cascade", "#56b4e9", "/////"),
}
_INK, _SOFT = "#1a1f26", "#dfe3e8"

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7.5,
    "axes.edgecolor": _INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.labelsize": 7,
    "grid.color": _SOFT,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "savefig.dpi": DPI,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mteval",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


class Look(NamedTuple):
    """How a line looks."""

    colour: str
    dash: Any
    marker: str


_WHOLE = Look(_INK, "", "o")


class Curve(NamedTuple):
    """Numbers by turn under the name that the legend gives them."""

    name: str
    look: Look
    numbers: Mapping[int, Number]


class Chart(NamedTuple):
    """One figure.

    Attributes:
        name: of its files. words: the axis of values. panels: title -> curves, side by side on one scale.
        under: the protocol, where all curves have one. bounds: the ends of the axis of values, None = as needed.
        draw: :func:`lines` or :func:`bars`.
    """

    name: str
    words: str
    panels: dict[str, list[Curve]]
    under: str
    bounds: tuple[float | None, float | None]
    draw: Callable[[Any, Sequence[Curve]], dict[str, Any]]


def charts(runs: Sequence[Shown]) -> list[Chart]:
    """Those that the runs of a chapter have numbers for."""
    named = {_name(run): run for run in runs}
    looks = _looks(runs)

    def by_run(scorer: Callable[[Shown], str], metric: str) -> dict[str, list[Curve]]:
        """One panel, a curve a run."""
        curves = [
            Curve(name, looks[run.name], run.numbers.by_turn(FREE, scorer(run), metric)) for name, run in named.items()
        ]
        return {"": curves}

    done, kept = by_run(_following, "turn_success"), by_run(_consistency, "content_consistency")
    protocols = {name: _by_protocol(run) for name, run in named.items()}
    bias = {name: _bias(run) for name, run in named.items()}
    made = [
        Chart("success-by-protocol", "sessions with this turn's edit done, M\u00a0(%)", protocols, "", (0, 100), lines),
        Chart("turn-success", "sessions with every edit so far done, S\u00a0(%)", done, FREE, (0, 100), lines),
        Chart("exposure-bias", "success lost to its own history, EB\u00a0(points)", bias, "", (None, None), bars),
        Chart("content-consistency", "untouched content alike, CC\u00a0(%)", kept, FREE, (None, 100), lines),
    ]
    return [chart for chart in map(_filled, made) if chart.panels]


def write(chart: Chart, path: Path, width: str) -> list[Path]:
    """Draw a chart into ``path`` with the endings of :data:`KINDS`; the same numbers give the same bytes.

    Args:
        path: without an ending. width: one of :data:`WIDTHS`.

    Returns:
        The files.
    """
    from matplotlib import style

    files = [path.with_name(f"{path.name}.{kind}") for kind in KINDS]
    with style.context(["default", _STYLE]):
        figure = _figure(chart, width)
        for file, metadata in zip(files, ({"Software": None}, {"Date": None, "Title": chart.words}), strict=True):
            figure.savefig(file, metadata=metadata)
    return files


def lines(axes: Any, curves: Sequence[Curve]) -> dict[str, Any]:
    """A line a curve with its intervals; where a turn has no number there is a gap.

    Returns:
        Name -> what the legend shows.
    """
    handles = {}
    last = _last(curves)
    turns = range(1, last + 1)
    banded = _banded(curves)
    for place, curve in enumerate(curves):
        colour, dash, marker = curve.look
        values, low, high = ([_ends(curve.numbers.get(turn))[k] for turn in turns] for k in range(3))
        shift = 0.0 if banded else min(0.07, 0.6 / len(curves)) * (place - (len(curves) - 1) / 2)
        x = [turn + shift for turn in turns]
        if banded:
            axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
        else:
            axes.vlines(x, low, high, color=colour, linewidth=0.7, alpha=0.7)
        (handles[curve.name],) = axes.plot(x, values, color=colour, linestyle=dash, marker=marker, clip_on=False)
    return handles


def bars(axes: Any, curves: Sequence[Curve]) -> dict[str, Any]:
    """The parts stacked, positive ones up from zero and negative ones down, and the whole with its interval.

    Args:
        curves: the whole, then its parts.

    Returns:
        Name -> what the legend shows.
    """
    whole, *parts = curves
    handles = {}
    up, down = dict.fromkeys(whole.numbers, 0.0), dict.fromkeys(whole.numbers, 0.0)
    for part in parts:
        _, colour, hatch = _PARTS[part.name]
        known = {turn: PERCENT.scale * number.value for turn, number in part.numbers.items() if turn in up}
        bottoms = [(up if value >= 0 else down)[turn] for turn, value in known.items()]
        for turn, value in known.items():
            (up if value >= 0 else down)[turn] += value
        handles[part.name] = axes.bar(
            list(known),
            list(known.values()),
            width=0.62,
            bottom=bottoms,
            color=colour,
            hatch=hatch,
            edgecolor=_INK,
            linewidth=0.4,
        )
    x = sorted(whole.numbers)
    values, low, high = ([_ends(whole.numbers[turn])[k] for turn in x] for k in range(3))
    axes.axhline(0, color=_INK, linewidth=0.6)
    reach = [[v - a for v, a in zip(values, low, strict=True)], [b - v for v, b in zip(values, high, strict=True)]]
    handles[whole.name] = axes.errorbar(
        x, values, reach, fmt="o", color=_INK, markersize=2.6, capsize=2, linewidth=0.8, clip_on=False
    )
    return handles


def _following(run: Shown) -> str:
    return run.following


def _consistency(run: Shown) -> str:
    return run.consistency


def _by_protocol(run: Shown) -> list[Curve]:
    return [
        Curve(protocol, _look(index), run.numbers.by_turn(protocol, run.following, "marginal_success"))
        for index, protocol in enumerate(PROTOCOLS)
    ]


def _bias(run: Shown) -> list[Curve]:
    whole = run.numbers.by_turn(PAIRED, run.following, "exposure_bias")
    parts = [
        Curve(name, _WHOLE, run.numbers.by_turn(PAIRED, run.following, f"exposure_bias_{part}"))
        for name, (part, _, _) in _PARTS.items()
    ]
    return [Curve("sum of both, with 95 % interval", _WHOLE, whole), *parts] if whole else []


def _filled(chart: Chart) -> Chart:
    """Without curves that have no number, and panels that have no curve."""
    panels = {title: [curve for curve in curves if curve.numbers] for title, curves in chart.panels.items()}
    return chart._replace(panels={title: curves for title, curves in panels.items() if curves})


def _looks(runs: Sequence[Shown]) -> dict[str, Look]:
    """Of each run, the same in every figure: colours for editors, greys for controls."""
    controls = [run.name for run in runs if _is_control(run)]
    editors = [run.name for run in runs if not _is_control(run)]
    looks = {name: _look(index) for index, name in enumerate(editors)}
    for index, name in enumerate(controls):
        looks[name] = Look(*(of[index % 2] for of in (_GREYS, _CONTROL_DASHES, _CONTROL_MARKERS)))
    return looks


def _name(run: Shown) -> str:
    """With what a reader has to know of it."""
    control = " (control)" if _is_control(run) else ""
    return f"{run.name}{control}" + (
        f", coverage {PERCENT.text(run.coverage)} %" if run.coverage < BANNER_BELOW else ""
    )


def _is_control(run: Shown) -> bool:
    return run.config["editor"]["id"] in _CONTROLS


def _look(index: int) -> Look:
    """Colours, dashes and markers start over at different times: no two of 56 lines look alike."""
    return Look(*(of[index % len(of)] for of in (_COLOURS, _DASHES, _MARKERS)))


def _ends(number: Number | None) -> tuple[float, float, float]:
    """Value, low and high in per cent or points; NaN where there is none, the value where it has no interval."""
    if number is None:
        return math.nan, math.nan, math.nan
    ends = (number.value if math.isnan(end) else end for end in (number.low, number.high))
    value, low, high = (PERCENT.scale * end for end in (number.value, *ends))
    return value, low, high


def _last(curves: Sequence[Curve]) -> int:
    return max(turn for curve in curves for turn in curve.numbers)


def _banded(curves: Sequence[Curve]) -> bool:
    """Whether intervals are bands: more than three of them cannot be told apart, and one turn has no breadth."""
    return len(curves) <= 3 and _last(curves) > 1


def _figure(chart: Chart, width: str) -> Any:
    from matplotlib.figure import Figure

    columns = min(len(chart.panels), _PANELS[width])
    rows = math.ceil(len(chart.panels) / columns)
    panel = WIDTHS[width] / columns
    titles = [textwrap.fill(one_line(title), int((panel - 0.3) / _LETTER)) for title in chart.panels]
    if len(titles) == 1:
        titles = [""]  # the name of the only run is for the caption
    above = _LINE * max(title.count("\n") + bool(title) for title in titles)
    height = min(max(0.66 * panel, 1.35), 2.4)
    key, side, below = _legend(chart, width)
    figure = Figure(figsize=(WIDTHS[width], rows * (height + above) + below), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(titles) :]:
        axes.remove()
    last = max(map(_last, chart.panels.values()))
    margin = 0.6 if chart.draw is bars or last == 1 else 0.35
    handles: dict[str, Any] = {}
    for place, (title, curves) in enumerate(zip(titles, chart.panels.values(), strict=True)):
        axes = grid.flat[place]
        handles |= chart.draw(axes, curves)
        axes.set_title(title)
        axes.set_xlim(1 - margin, last + margin)
        axes.set_xticks(range(1, last + 1, math.ceil(last / 10)))
        if place + columns >= len(titles):
            axes.set_xlabel("turn", labelpad=1)
        if place % columns == 0:
            axes.set_ylabel(textwrap.fill(chart.words, int(height / _LETTER)))
    grid[0, 0].set_ylim(*chart.bounds)
    low, high = grid[0, 0].get_ylim()
    if high - low < _SHORTEST:
        top = (low + high + _SHORTEST) / 2 if chart.bounds[1] is None else high
        grid[0, 0].set_ylim(top - _SHORTEST, top)
    # Named here and not where they are drawn: matplotlib hides a name that begins with an underscore.
    figure.legend(handles.values(), map(_wrapped, handles), loc="outside lower center", ncols=side, title=key)
    return figure


def _legend(chart: Chart, width: str) -> tuple[str | None, int, float]:
    """The heading of the legend, its entries side by side, and how much room it takes in inches."""
    key = None
    if chart.draw is lines:
        kinds = {"band" if _banded(curves) else "whisker" for curves in chart.panels.values()}
        key = "; ".join([*([chart.under] if chart.under else []), f"{' or '.join(sorted(kinds))}: 95 % interval"])
    names = {curve.name for curves in chart.panels.values() for curve in curves}
    entries = [_wrapped(name).split("\n") for name in names]
    entry = 0.5 + _LETTER * max(len(line) for wrapped in entries for line in wrapped)
    side = max(1, min(len(names), int(WIDTHS[width] / entry)))
    deep = math.ceil(len(names) / side) * max(map(len, entries)) + bool(key)
    return key, side, 0.1 + _LINE * deep


def _wrapped(name: str) -> str:
    return textwrap.fill(one_line(name), 34)
