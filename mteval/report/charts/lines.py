"""Numbers by turn as lines with the bands of their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from mteval.report.charts.frame import HEIGHT, Frame, frame
from mteval.report.charts.svg import WIDTH, dash, drawing, length, line, marker, points, style, text, ticks, titled
from mteval.report.numbers import OWN, Number, Unit

_GAP = 12.5  # least distance of two labels at the end of lines


class Series(NamedTuple):
    """One line: its name, its style (see :func:`mteval.report.charts.svg.style`) and turn -> number."""

    name: str
    style: int
    numbers: Mapping[int, Number]


def lines(series: Sequence[Series], label: str, unit: Unit, bounds: tuple[float, float] | None = None) -> Markup:
    """A line a series, with its last value written at its end.

    Args:
        label: what the chart shows, for those who cannot see it.
        bounds: the ends of the axis of values; None = what the intervals need.
    """
    found = [number for one in series for number in one.numbers.values()]
    low, high = bounds or (min(map(_low, found)), max(map(_high, found)))
    # An axis of five points or decibels at least; of a unit that nothing is known of, a twentieth of what it shows.
    shortest = 0.05 * abs(high) if unit == OWN else 5 / unit.scale
    marks = ticks(min(low, high - shortest), high)
    box = frame(max(turn for one in series for turn in one.numbers), marks, unit.scale)
    parts = [*box.axes, *(_band(one, box) for one in series), *(_line(one, box, unit) for one in series)]
    return drawing(WIDTH, HEIGHT, label, [*parts, *_ends(series, box, unit)])


def _low(number: Number) -> float:
    return number.value if math.isnan(number.low) else number.low


def _high(number: Number) -> float:
    return number.value if math.isnan(number.high) else number.high


def _band(one: Series, box: Frame) -> Markup:
    known = sorted(one.numbers.items())
    if len(known) == 1:
        ((turn, number),) = known
        x = box.x(turn)
        stroke = line(x, box.y(_low(number)), x, box.y(_high(number)), "whisker")
        return Markup('<g class="{}">{}</g>').format(style(one.style), stroke)
    upper = [(box.x(turn), box.y(_high(number))) for turn, number in known]
    lower = [(box.x(turn), box.y(_low(number))) for turn, number in reversed(known)]
    return Markup('<polygon points="{}" class="band {}"/>').format(points(upper + lower), style(one.style))


def _line(one: Series, box: Frame, unit: Unit) -> Markup:
    known = sorted(one.numbers.items())
    places = [(box.x(turn), box.y(number.value)) for turn, number in known]
    path = Markup('<polyline points="{}" class="line" stroke-dasharray="{}"/>').format(points(places), dash(one.style))
    marks = [
        titled(
            f"{one.name}, turn {turn}: {unit.full(number)}",
            Markup('<circle cx="{}" cy="{}" r="10" class="touch"/>').format(length(x), length(y)),
            marker(one.style, x, y),
        )
        for (turn, number), (x, y) in zip(known, places, strict=True)
    ]
    return Markup('<g class="{}">{}{}</g>').format(style(one.style), path, Markup("").join(marks))


def _ends(series: Sequence[Series], box: Frame, unit: Unit) -> list[Markup]:
    """The last value of each line at its end, pushed apart where they would overlap."""
    last = []
    for one in series:
        turn, number = max(one.numbers.items())
        last.append((box.y(number.value) + 4, box.x(turn) + 8, unit.text(number.value), one.style))
    last.sort()
    heights = [place[0] for place in last]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + _GAP)
    over = max(0.0, heights[-1] - box.y.start - 4)
    for index in reversed(range(len(heights))):
        ceiling = heights[index + 1] - _GAP if index + 1 < len(heights) else heights[index] - over
        heights[index] = min(heights[index], ceiling)
    return [
        text(x, y, words, "start", f"value {style(number)}")
        for (_, x, words, number), y in zip(last, heights, strict=True)
    ]
