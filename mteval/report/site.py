"""The site of several runs: ``index.html`` with all numbers and charts, and every session in shards beside it.

It opens from a file, without a network. The page holds the metrics tables of its runs as they stand in their
``metrics.json``; its script looks numbers up in them and computes none.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mteval.compare import COMPARED
from mteval.errors import UsageError
from mteval.metrics import BANNER_BELOW, COLUMNS, RANKED_FROM
from mteval.report import about, html, sessions
from mteval.report.board import Board, Measured
from mteval.report.numbers import OWN, POINTS, rounded
from mteval.report.runs import FORCED, SINGLE, Shown, chapters
from mteval.store import RUN

if TYPE_CHECKING:
    from mteval.store import RunFolder

PAGE = "index.html"

SCRIPTS = ("theme", "dom", "place", "shards", "board", "gallery", "difference", "frames", "viewer", "main")
"""The files of templates/site, in the order in which they are read."""

CONTROLS = ("identity", "codec")
"""Editors that only drift can move: what a curve is held against."""

_OTHER_PROTOCOLS = (
    Measured("CC", "untouched content kept", FORCED, "content_consistency"),
    Measured("S", "every edit so far done", SINGLE, "turn_success"),
    Measured("M", "this turn's edit done", SINGLE, "marginal_success"),
    Measured("CC", "untouched content kept", SINGLE, "content_consistency"),
)
"""Columns beside the usual ones, where the reader asks for one protocol."""

_WORDS = ("protocol", "scorer", "task_type", "metric", "method")  # columns that are given as numbers of words
_MARK = '<meta name="generator" content="mteval">'


def write(runs: Sequence[RunFolder], folder: Path) -> None:
    """Write the site of several runs into a folder; the same runs give the same bytes.

    An older site in the folder is replaced, other files are left alone.

    Raises:
        UsageError: a run has not come to its end; the folder is a run, or its names are taken by something else.
    """
    files = sessions.Files(folder / sessions.DATA, folder / sessions.IMAGES)
    _check(folder, files)
    groups = chapters(runs)
    page = render(groups)  # before anything is written: it reads the metrics of every run
    for place in files:
        if place.exists():
            shutil.rmtree(place)
        place.mkdir(parents=True)
    (folder / PAGE).write_text(page, "utf-8")
    for number, group in enumerate(groups):
        sessions.write(number, group, files)


def render(groups: Sequence[list[Shown]]) -> str:
    """``index.html`` as text."""
    shown = [run for group in groups for run in group]
    environment = html.templates()
    found = [html.chapter(group, []) for group in groups]
    return environment.get_template("site/page.html").render(
        title=f"{html.title(shown)} · mteval",
        chapters=found,
        controls=[[run.name for run in group if run.config["editor"]["id"] in CONTROLS] for group in groups],
        thin=html.thin(shown),
        about=about,
        runs=shown,
        style=Markup(html.file_of(environment, "style.css") + html.file_of(environment, "site/site.css")),
        scripts=[Markup(html.file_of(environment, f"site/{name}.js")) for name in SCRIPTS],
        data=Markup(inline(data([(chapter.runs, chapter.board) for chapter in found]))),
    )


def data(chapters: Sequence[tuple[Sequence[Shown], Board | None]]) -> dict[str, Any]:
    """What the script of the page reads: what was run, the columns of the board, and every number."""
    words: dict[str, int] = {}
    return {
        "chapters": [_chapter(runs, board, words) for runs, board in chapters],
        "columns": list(COLUMNS),
        "words": list(words),
        "banner_below": BANNER_BELOW,
        "ranked_from": RANKED_FROM,
    }


def inline(body: Any) -> str:
    """JSON for a script element that is no script: without ``<``, nothing in it ends the element."""
    return json.dumps(body, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _chapter(runs: Sequence[Shown], board: Board | None, words: dict[str, int]) -> dict[str, Any]:
    config = runs[0].config
    columns = (*board.columns, *_OTHER_PROTOCOLS) if board else ()
    rows = {row.run.name: row for row in board.rows} if board else {}
    return {
        "benchmark": config["benchmark"],
        "judged": runs[0].following,
        "turns": max(run.turns for run in runs),
        "turn": board.turn if board else max(run.turns for run in runs),
        "types": list(config["benchmark_info"]["task_types"]),
        "by": board.columns.index(board.by) if board else 0,
        "note": board.note if board else "",
        "columns": [_column(column, runs, usual=k < len(board.columns)) for k, column in enumerate(columns) if board],
        "runs": [
            {
                "name": run.name,
                "folder": run.folder.path.name,
                "turns": run.turns,
                "protocols": run.protocols,
                "repeats": run.config["settings"]["repeats"],
                "following": run.following,
                "scorers": list(run.config["scorers"]),
                "place": rows[run.name].place if run.name in rows else None,
                "group": rows[run.name].group if run.name in rows else "",
                "unranked": rows[run.name].unranked if run.name in rows else "",
                "coverage": None if math.isnan(run.coverage) else run.coverage,
                "spent": spent(run),
                "numbers": _numbers(run, words),
            }
            for run in runs
        ],
    }


def _column(column: Measured, runs: Sequence[Shown], usual: bool) -> dict[str, Any]:
    unit = column.unit
    return {
        "symbol": column.symbol,
        "words": column.words,
        "protocol": column.protocol,
        "metric": column.metric,
        "usual": usual,
        "by_turn": column.turn(1) is not None,
        "lower_is_better": COMPARED[column.metric].lower_is_better,
        "unit": {"name": unit.name, "scale": unit.scale, "own": unit == OWN, "signed": unit == POINTS},
        "scorers": [column.scorer(run) for run in runs],
    }


def _numbers(run: Shown, words: dict[str, int]) -> list[list[float | int | None]]:
    """The metrics table without the rows that have no value: words as numbers, no data as None."""
    table = rounded(run.table[run.table["value"].notna()])
    rows = table[list(COLUMNS)].astype(object).where(table.notna(), None).itertuples(index=False, name=None)
    coded = [name in _WORDS for name in COLUMNS]
    return [
        [words.setdefault(cell, len(words)) if code else cell for cell, code in zip(row, coded, strict=True)]
        for row in rows
    ]


def spent(run: Shown) -> dict[str, float] | None:
    """Seconds and US dollars of the editor a turn, over all calls that were made for it; None without a record."""
    timings = run.folder.timings()
    if not timings:
        return None
    turns = len({(timing.session, timing.protocol, timing.turn, timing.repeat) for timing in timings})
    seconds, dollars = sum(timing.latency for timing in timings), sum(timing.cost for timing in timings)
    return {"seconds": round(seconds / turns, 6), "dollars": round(dollars / turns, 6)}


def _check(folder: Path, files: sessions.Files) -> None:
    if (folder / RUN).exists():
        raise UsageError(f"{folder} is a run folder: choose another --output for the site")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose a folder as --output of the site")
    page = folder / PAGE
    if page.is_file() and _MARK in page.read_text("utf-8", errors="replace"):
        return
    for place in (page, *files):
        if place.exists():
            raise UsageError(f"{place} exists and was not made by mteval: choose another --output for the site")
