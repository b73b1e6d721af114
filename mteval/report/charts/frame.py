"""The axes that charts over turns share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from mteval.report.charts.svg import WIDTH, Scale, line, text

HEIGHT = 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 38, 16, 36


class Frame(NamedTuple):
    """Where turns and values go, and the axes that say so."""

    x: Scale
    y: Scale
    axes: list[Markup]

    @property
    def step(self) -> float:
        """The distance of two turns."""
        return abs(self.x(1) - self.x(0))


def frame(turns: int, marks: Sequence[float], scale: float, pad: float = 0.35) -> Frame:
    """Axes for turns 1..``turns`` and the ticks ``marks`` (values; written ``scale`` times as large).

    Args:
        pad: the room left of the first and right of the last turn, in turns.
    """
    if turns == 1:
        pad = 1.0
    x = Scale(1 - pad, turns + pad, _LEFT, WIDTH - _RIGHT)
    y = Scale(marks[0], marks[-1], HEIGHT - _BOTTOM, _TOP)
    axes = []
    for mark in marks:
        axes.append(line(_LEFT, y(mark), WIDTH - _RIGHT, y(mark), "zero" if mark == 0 else "grid"))
        axes.append(text(_LEFT - 6, y(mark) + 4, f"{mark * scale:g}".replace("-", "−"), "end"))
    axes += [text(x(turn), HEIGHT - _BOTTOM + 17, str(turn)) for turn in range(1, turns + 1)]
    axes.append(text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, "turn", kind="soft"))
    return Frame(x, y, axes)
