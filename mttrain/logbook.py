"""What a run's folder tells: the recipe it belongs to, a line an iteration, and the curves as a picture."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mteval.errors import UsageError

RECIPE, LOG, CURVES = "recipe.json", "log.jsonl", "curves.png"

Line = dict[str, float]


class Logbook:
    """``log.jsonl`` of a run's folder: one line an iteration, ``iteration`` from 1 and ``clock`` in seconds since 1970.

    Args:
        done: iterations that the run goes on after; lines of later ones are cut, they are made again.
    """

    def __init__(self, folder: Path, done: int) -> None:
        self.path = folder / LOG
        folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read(folder) if line["iteration"] <= done]
        self.path.write_text("".join(f"{json.dumps(line)}\n" for line in kept))

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Append a line; a figure that is not a number is left out."""
        known = {name: float(f"{value:.9g}") for name, value in figures.items() if math.isfinite(value)}
        with self.path.open("a") as file:
            file.write(json.dumps({"iteration": iteration, "clock": round(time.time(), 1), **known}) + "\n")


def refuse_other(folder: Path, identity: Mapping[str, Any]) -> None:
    """A folder belongs to one recipe, which its ``recipe.json`` states.

    Raises:
        UsageError: it holds a run of another one.
    """
    path = folder / RECIPE
    if path.exists():
        before = json.loads(path.read_text())
        differ = [key for key in identity if before.get(key) != identity[key]]
        if differ:
            raise UsageError(
                f"{folder} holds a run of another recipe (other {', '.join(differ)}): choose another output="
            )


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder that of this recipe, unless it is."""
    if (folder / RECIPE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{RECIPE}.tmp"
    temporary.write_text(json.dumps(identity, indent=2))
    temporary.replace(folder / RECIPE)


def read(folder: Path) -> list[Line]:
    """The lines of a run so far; a torn last one is left out."""
    path = folder / LOG
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw(folder: Path) -> None:
    """``curves.png``: rewards by turn, validation by turn, then what the objective says, all over iterations."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read(folder)
    if not lines:
        return
    told = {name for line in lines for name in line} - {"iteration", "clock", "spent"}
    names = sorted(told, key=lambda name: (not name.startswith("reward/"), not name.startswith("validation/"), name))
    panels = _panels(names)
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for k, (title, shown) in enumerate(panels.items()):
        axes: Any = figure.add_subplot(rows, columns, k + 1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
        for name in shown:
            points = [(line["iteration"], line[name]) for line in lines if name in line]
            few = len(points) <= 50
            label = f"turn {name.partition('@')[2]}" if "@" in name else name
            axes.plot(*zip(*_smooth(points), strict=True), marker="o" if few else "", markersize=3, label=label)
        if len(shown) > 1 and len(shown) <= 10:
            axes.legend(fontsize=7, loc="best")
        axes.grid(alpha=0.3)
    temporary = folder / f"{CURVES}.tmp"
    figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(folder / CURVES)


def _panels(names: list[str]) -> dict[str, list[str]]:
    """Title -> the figures drawn there: those of one metric at all turns together, all else alone."""
    found: dict[str, list[str]] = {}
    for name in names:
        metric, at, turn = name.partition("@")
        if at and "/" in turn:
            metric = f"{metric}, {turn.partition('/')[2]}"
        found.setdefault(metric, []).append(name)
    for several in found.values():
        several.sort(key=lambda name: int(name.partition("@")[2].partition("/")[0] or 0))
    return found


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of neighbours, at most 100 points: single iterations are noisy."""
    size = math.ceil(len(points) / 100)
    parts = [points[k : k + size] for k in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
