"""What a paper or a notebook takes from runs: tables, figures and data frames, all from the same numbers as the page.

=========================== ========================================================================================
file                        holds
=========================== ========================================================================================
``leaderboard.csv``         every number, one a row: :func:`mteval.report.csv.leaderboard`
``leaderboard.md``, ``.tex`` a table a benchmark, with intervals, tie groups and what is missing
``figures/*.png``, ``.svg`` for one column of a paper (``-single``) and for both (``-double``)
``turns.parquet``           one row a turn: :func:`mteval.metrics.turn_table`
``scores.parquet``          one row a score and part: :func:`mteval.metrics.score_table`
``metrics.parquet``         the metrics table, with the bounds that the CSV file leaves out
=========================== ========================================================================================
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mteval.errors import UsageError
from mteval.metrics import score_table, turn_table
from mteval.registry import nearest
from mteval.report import csv, export_figures, export_tables
from mteval.report.numbers import rounded
from mteval.report.runs import chapters, names
from mteval.store import LEADERBOARD, RUN, RunFolder, save_table

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "md", "tex", "figures", "parquet")

_NEEDS = {"figures": "matplotlib", "parquet": "pyarrow"}


def check(folder: Path, formats: Sequence[str]) -> None:
    """Refuse what :func:`export` could not do, before anything is read or written.

    Raises:
        UsageError: an unknown format; one whose library is not installed; a folder that cannot be written, or that is
            in a run's own.
    """
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"unknown format '{name}': {nearest(name, list(FORMATS))}")
    missing = [f"{name} needs {_NEEDS[name]}" for name in formats if name in _NEEDS and not find_spec(_NEEDS[name])]
    if missing:
        rest = ",".join(name for name in FORMATS if name not in _NEEDS)
        raise UsageError(f"{', '.join(missing)}: pip install 'mteval[export]', or choose --formats {rest}")
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "it is read-only" if existing.is_dir() else "it is not a folder"
        raise UsageError(f"cannot write to {folder}: {existing} cannot hold it ({reason}); choose another --output")
    run = next((place for place in (folder.absolute(), *folder.absolute().parents) if (place / RUN).is_file()), None)
    if run:
        raise UsageError(f"{run} is a run folder, which only a run writes to: choose another --output")


def export(runs: Sequence[RunFolder], folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the files of ``formats`` into ``folder``; the same runs give the same bytes.

    Returns:
        The files. A figure that no run has the numbers for is not among them.

    Raises:
        UsageError: see :func:`check`; a run that has not come to its end; two runs that cannot be told apart by name.
    """
    check(folder, formats)
    _check_names(runs)
    numbers = csv.leaderboard(runs)
    found = chapters(runs)
    # All that can go wrong with a run goes wrong here, before anything is written.
    sheets = export_tables.sheets(found) if {"md", "tex"} & set(formats) else []
    frames = _frames(runs) if "parquet" in formats else {}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if "csv" in formats:
        written.append(folder / LEADERBOARD)
        save_table(numbers, written[-1])
    for name, text in (("md", export_tables.markdown), ("tex", export_tables.latex)):
        if name in formats:
            written.append(folder / f"leaderboard.{name}")
            written[-1].write_text(text(sheets), "utf-8")
    if "figures" in formats:
        (folder / "figures").mkdir(exist_ok=True)
        for number, group in enumerate(found, start=1):
            # The number keeps two chapters of one benchmark apart.
            begin = f"{number}-{_plain(group[0].config['benchmark'])}-" if len(found) > 1 else ""
            for chart in export_figures.charts(group):
                for width in export_figures.WIDTHS:
                    place = folder / "figures" / f"{begin}{chart.name}-{width}"
                    written += export_figures.write(chart, place, width)
    for name, frame in frames.items():
        written.append(folder / f"{name}.parquet")
        frame.to_parquet(written[-1], engine="pyarrow", index=False)
    return written


def _check_names(runs: Sequence[RunFolder]) -> None:
    named = zip(names(runs), (str(run.config["benchmark"]) for run in runs), strict=True)
    (name, benchmark), count = Counter(named).most_common(1)[0]
    if count > 1:
        raise UsageError(
            f"{count} of the runs are '{name}' on {benchmark}: name each run once, and give no two folders one name"
        )


def _plain(name: str) -> str:
    """A name that is safe in a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]


def _frames(runs: Sequence[RunFolder]) -> dict[str, pd.DataFrame]:
    """The three tables of all runs, with the columns ``model`` and ``benchmark`` first; in the order of the models."""
    tables: dict[str, Callable[[RunFolder], pd.DataFrame]] = {
        "turns": lambda run: turn_table(run.turn_records()),
        "scores": lambda run: score_table(run.score_records()),
        "metrics": lambda run: rounded(run.metrics()),
    }
    named = sorted(zip(names(runs), (str(run.config["benchmark"]) for run in runs), range(len(runs)), strict=True))
    return {
        name: _joined([(model, benchmark, table(runs[place])) for model, benchmark, place in named])
        for name, table in tables.items()
    }


def _joined(parts: Sequence[tuple[str, str, pd.DataFrame]]) -> pd.DataFrame:
    import pandas as pd

    tables = []
    for model, benchmark, table in parts:
        # Categories differ between runs, and other readers of parquet know plain text better.
        texts = table.astype(dict.fromkeys(table.select_dtypes("category"), "str"))
        texts.insert(0, "benchmark", benchmark)
        texts.insert(0, "model", model)
        tables.append(texts)
    return pd.concat(tables, ignore_index=True)
