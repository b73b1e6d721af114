"""What ``mteval judge calibrate`` shows in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mteval.cli.show import cell

if TYPE_CHECKING:
    import pandas as pd

_CONFUSION = {
    "both": "both 1",
    "judge_only": "judge 1,\nlabel 0",
    "label_only": "judge 0,\nlabel 1",
    "neither": "both 0",
}

_WIDE = 110
"""Columns of a terminal in which every interval has room."""


def show(found: Mapping[str, pd.DataFrame], title: str) -> None:
    """Print what :mod:`mteval.calibrating` found, by the name of its CSV: points with 95 % intervals."""
    console = Console()
    console.print(title, soft_wrap=True)
    if "agreement" in found:
        console.print(_agreement(found["agreement"], console.width >= _WIDE))
    if "confusion" in found:
        console.print(_confusion(found["confusion"]))
    if "rates" in found:
        console.print(_rates(found["rates"]))
    for row in found["retest"].to_dict("records") if "retest" in found else ():
        interval = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        name = str(row["measure"]).replace("_", " ")
        console.print(f"{name} between votes: {interval} ({row['n']} turns)", soft_wrap=True)
    for row in found["probes"].to_dict("records") if "probes" in found else ():
        unread = f", {row['failed']} could not be read" if row["failed"] else ""
        value, low, high = (f"{100 * row[name]:.0f}" for name in ("right", "low", "high"))
        told = f"{value} [{low}, {high}] % said {row['expected']} ({row['n']} turns{unread})"
        console.print(f"{row['probe']}: {told}", soft_wrap=True)


def _agreement(rows: pd.DataFrame, wide: bool) -> Table:
    """By group; where the terminal is narrow, with the intervals of agreement and bias alone."""
    measures = list(dict.fromkeys(rows["measure"]))
    table = _table(["turns", *measures])
    last: Any = "all"
    for (group, of), part in rows.groupby(["group", "of"], sort=False):
        if group != last:
            table.add_section()
        last = group
        found = {name: part[part["measure"] == name] for name in measures}
        cells = [
            cell(one, 0) if wide or name in ("agreement", "bias") else cell(one, 0).partition(" ")[0]
            for name, one in found.items()
        ]
        table.add_row("all" if group == "all" else f"turn {of}" if group == "turn" else str(of), *cells)
    return table


def _confusion(rows: pd.DataFrame) -> Table:
    table = _table(["task type", *_CONFUSION.values()])
    for row in rows.to_dict("records"):
        table.add_row(str(row["task_type"]), *(str(row[name]) for name in _CONFUSION))
    return table


def _rates(rows: pd.DataFrame) -> Table:
    estimates = list(dict.fromkeys(rows["estimate"]))
    table = _table(["success at turn", *(name.replace("_", " ") for name in estimates)])
    for (model, protocol, turn), part in rows.groupby(["model", "protocol", "turn"], sort=False):
        table.add_row(f"{model} {protocol} {turn}", *(cell(part[part["estimate"] == name], 0) for name in estimates))
    return table


def _table(headers: Sequence[Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for k, header in enumerate(headers):
        table.add_column(header, justify="right" if k else "left", overflow="fold", no_wrap=k > 0)
    return table
