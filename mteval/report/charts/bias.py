"""Exposure bias by turn: bars of its two parts, stacked, and its total with the interval."""

from __future__ import annotations

import math
from collections.abc import Mapping

from markupsafe import Markup

from mteval.report.charts.frame import HEIGHT, Frame, frame
from mteval.report.charts.svg import WIDTH, drawing, length, line, rect, text, ticks, titled
from mteval.report.numbers import POINTS, Number

PARTS = ("drift", "cascade")


def bias(total: Mapping[int, Number], parts: Mapping[str, Mapping[int, Number]], label: str) -> Markup:
    """A bar a turn.

    Args:
        total: turn -> EB_t. parts: ``drift`` and ``cascade`` -> turn -> number; a negative part hangs below zero.
    """
    spans = [span for turn in total for span in _spans(turn, parts).values()]
    ends = [end for number in total.values() for end in (number.low, number.high, number.value) if not math.isnan(end)]
    ends += [end for span in spans for end in span]
    marks = ticks(min(0.0, *ends), max(0.05, *ends) * 1.08)
    box = frame(max(total), marks, POINTS.scale, pad=0.6)
    bars = [_bar(turn, number, parts, box) for turn, number in sorted(total.items())]
    return drawing(WIDTH, HEIGHT, label, [*box.axes, *bars])


def _spans(turn: int, parts: Mapping[str, Mapping[int, Number]]) -> dict[str, tuple[float, float]]:
    """From where to where each part reaches: positive parts stack upwards from zero, negative ones downwards."""
    up = down = 0.0
    found = {}
    for name in PARTS:
        if turn in parts[name]:
            value = parts[name][turn].value
            if value >= 0:
                found[name] = (up, up + value)
                up += value
            else:
                found[name] = (down + value, down)
                down += value
    return found


def _bar(turn: int, total: Number, parts: Mapping[str, Mapping[int, Number]], box: Frame) -> Markup:
    width = min(36.0, 0.56 * box.step)
    x = box.x(turn)
    drawn = [
        titled(
            f"{name}, turn {turn}: {POINTS.full(parts[name][turn])}",
            rect(x - width / 2, box.y(high), width, box.y(low) - box.y(high), f"part {name}"),
        )
        for name, (low, high) in _spans(turn, parts).items()
    ]
    top = box.y(max([total.value, *(high for _, high in _spans(turn, parts).values())]))
    whisker = []
    if not math.isnan(total.low):
        low, high = box.y(total.low), box.y(total.high)
        whisker = [line(x, low, x, high, "whisker")]
        whisker += [line(x - 4, end, x + 4, end, "whisker") for end in (low, high)]
        top = min(top, high)
    dot = Markup('<circle cx="{}" cy="{}" r="3.4" class="dot"/>').format(length(x), length(box.y(total.value)))
    sum_of_both = titled(f"exposure bias, turn {turn}: {POINTS.full(total)}", *whisker, dot)
    return Markup("").join([*drawn, sum_of_both, text(x, top - 5, POINTS.text(total.value), kind="value")])
