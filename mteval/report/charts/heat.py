"""Rates by task type as a heat map with the number in each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from mteval.report.charts.svg import WIDTH, drawing, marker, rect, style, text, titled
from mteval.report.numbers import PERCENT, Number

_ROW, _HEAD, _LABELS = 25.0, 24.0, 116.0
_DARK = 0.55  # a cell above this value has light text on strong colour


class Column(NamedTuple):
    """A column: what tooltips call it, its heading (None = the marker of a line's ``style``), its numbers by row."""

    name: str
    heading: str | None
    style: int
    numbers: Mapping[str, Number]


def heat(rows: Sequence[str], columns: Sequence[Column], label: str) -> Markup:
    """One cell a row and column: colour and number are the rate in per cent; an empty cell has no data."""
    width = (WIDTH - _LABELS) / len(columns)
    parts = []
    for place, column in enumerate(columns):
        centre = _LABELS + (place + 0.5) * width
        if column.heading is None:
            mark = Markup('<g class="{}">{}</g>').format(style(column.style), marker(column.style, centre, 10, 5))
            parts.append(titled(column.name, mark))
        else:
            parts.append(text(centre, 15, column.heading, kind="soft head"))
    for index, row in enumerate(rows):
        y = _HEAD + index * _ROW
        parts.append(text(_LABELS - 8, y + _ROW / 2 + 4, row.replace("_", " "), "end"))
        parts += [
            _cell(_LABELS + place * width, y, width, f"{row.replace('_', ' ')}, {column.name}", column.numbers.get(row))
            for place, column in enumerate(columns)
        ]
    return drawing(WIDTH, _HEAD + len(rows) * _ROW + 2, label, parts)


def _cell(x: float, y: float, width: float, name: str, number: Number | None) -> Markup:
    inner = (x + 1, y + 1, width - 2, _ROW - 2)
    if number is None:
        return titled(f"{name}: no data", rect(*inner, "cell none"))
    strength = Markup(' fill-opacity="{:.3f}"').format(0.04 + 0.96 * min(max(number.value, 0.0), 1.0))
    kind = "value light" if number.value > _DARK else "value"
    shown = f"{100 * number.value:.0f}"
    return titled(
        f"{name}: {PERCENT.full(number)}",
        rect(*inner, "cell", strength),
        text(x + width / 2, y + _ROW / 2 + 4, shown, kind=kind),
    )
