"""One estimate as a small bar: a track, the interval on it, and the value."""

from __future__ import annotations

import math

from markupsafe import Markup

from mteval.report.charts.svg import Scale, drawing, length, line, titled
from mteval.report.numbers import Number, Unit

_WIDTH, _HEIGHT = 120.0, 14.0


def interval(number: Number, unit: Unit, bounds: tuple[float, float]) -> Markup:
    """The bar; ``bounds`` are the values at its ends, the same for every row of a column."""
    x = Scale(*bounds, 3, _WIDTH - 3)
    middle = _HEIGHT / 2
    parts = [line(x.start, middle, x.end, middle, "track")]
    if bounds[0] < 0:
        parts.append(line(x(0), 1, x(0), _HEIGHT - 1, "zero"))
    if not math.isnan(number.low):
        low, high = (min(max(end, bounds[0]), bounds[1]) for end in (number.low, number.high))
        parts.append(line(x(low), middle, x(high), middle, "reach"))
    value = min(max(number.value, bounds[0]), bounds[1])
    parts.append(Markup('<circle cx="{}" cy="{}" r="4" class="dot"/>').format(length(x(value)), length(middle)))
    label = unit.full(number)
    return drawing(_WIDTH, _HEIGHT, label, [titled(label, *parts)], "bar")
