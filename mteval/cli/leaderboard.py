"""``mteval leaderboard``: many runs, ranked with tie groups, and all their numbers as one tidy table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mteval.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from mteval.report.board import Board, Cell
    from mteval.report.runs import Shown


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    by: Annotated[
        str | None,
        typer.Option(help="Metric that ranks: turn_success, overall, exposure_bias, ... [default: turn_success]"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="CSV file for every number of every run, one a row.")] = None,
    published: Annotated[
        str | None, typer.Option(help="Show the numbers that others have published of a benchmark: edival.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="CSV file for all pairs, with Holm's adjusted p-values.")] = None,
) -> int:
    """Rank runs at the last turn that all have, with intervals and tie groups: what shares a letter is a tie.

    \b
    Example:
      mteval leaderboard runs/* --by overall --output leaderboard.csv --pairs pairs.csv
    """
    import pandas as pd
    from rich.console import Console

    from mteval.compare import COMPARED
    from mteval.report import csv
    from mteval.report.board import board, ranked_by, usual_ranking
    from mteval.report.published import rows
    from mteval.report.runs import chapters
    from mteval.store import RunFolder, save_table

    folders = [RunFolder(path) for path in runs if not path.is_file()]
    if not folders:
        raise UsageError("no run folder is named: `mteval leaderboard runs/*`")
    by = by or usual_ranking(chapters(folders)[0])
    groups = chapters(folders, COMPARED[ranked_by(by).metric].made_of)
    boards = [board(group, by) for group in groups]
    console = Console()
    if len(boards) > 1:
        console.print(
            f"{len(boards)} tables: runs of another benchmark, split or scorer are not ranked against each other\n",
            soft_wrap=True,
        )
    for group, made in zip(groups, boards, strict=True):
        console.print(_title(group, made), soft_wrap=True)
        console.print(_table(made))
        for sentence in _remarks(group, made):
            console.print(sentence, soft_wrap=True)
        console.print()
    if pairs:
        found = [_of(made, made.pairs) for made in boards if made.pairs is not None]
        if not found:
            raise UsageError("--pairs: there are no two ranked runs to compare")
        save_table(pd.concat(found, ignore_index=True), pairs)
        typer.echo(str(pairs))
    told = rows(published) if published else None
    if told is not None:
        console.print(_published_table(told))
    if output:
        save_table(csv.leaderboard(folders) if told is None else pd.concat([csv.leaderboard(folders), told]), output)
        typer.echo(str(output))
    return 0


def _published_table(told: pd.DataFrame) -> Table:
    """What others published: S, CC and O by turn in per cent, best first; never ranked against one's own runs."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    symbols = {"turn_success": "S", "content_consistency": "CC", "overall": "O"}
    turns = sorted(told["turn"].unique())
    last = told[(told["metric"] == "overall") & (told["turn"] == turns[-1])].set_index("model")["value"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title="published", title_justify="left")
    table.add_column("model", overflow="fold")
    for symbol in symbols.values():
        table.add_column(f"{symbol} at turn {', '.join(str(turn) for turn in turns)}", justify="right")
    for model in last.sort_values(ascending=False).index:
        mine = told[told["model"] == model].set_index(["metric", "turn"])["value"]
        cells = ([mine.get((metric, turn)) for turn in turns] for metric in symbols)
        table.add_row(str(model), *("  ".join("–" if v is None else f"{100 * v:.1f}" for v in row) for row in cells))
    return table


def _of(made: Board, pairs: pd.DataFrame) -> pd.DataFrame:
    turn = made.by.turn(made.turn)
    return pairs.assign(benchmark=_benchmark(made), metric=made.by.metric, turn=turn if turn else "")


def _benchmark(made: Board) -> str:
    return str(made.rows[0].run.config["benchmark"])


def _title(group: Sequence[Shown], made: Board) -> str:
    judge = made.by.scorer(group[0])
    turn = f" at turn {made.turn}" if made.by.turn(made.turn) else ""
    return f"{_benchmark(made)}{turn}, ranked by {made.by.metric}{f' of {judge}' if judge else ''}; 95 % intervals"


def _table(made: Board) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from mteval.metrics import coverage_of
    from mteval.report.numbers import PERCENT
    from mteval.report.runs import FORCED, FREE

    shown = [k for k, column in enumerate(made.columns) if column.protocol != FORCED]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("model", overflow="fold")
    table.add_column("ties")
    for k in shown:
        table.add_column(made.columns[k].symbol, justify="right")
    table.add_column("cover-\nage", justify="right", no_wrap=True)
    for row in made.rows:
        coverage = PERCENT.text(coverage_of(row.run.table, FREE))
        cells = (_written(row.cells[k]) for k in shown)
        table.add_row(str(row.place or "–"), row.run.name, row.group, *cells, coverage)
    return table


def _written(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    lines = [cell.value, cell.interval, f"({cell.bounds})" if cell.bounds else ""]
    return "\n".join(line for line in lines if line)


def _remarks(group: Sequence[Shown], made: Board) -> list[str]:
    """What a reader has to know of the table, one sentence each."""
    from mteval.report.board import unequal

    said = [made.note] if made.note else []
    said += [f"{row.run.name} is {row.unranked}." for row in made.rows if row.unranked]
    own = f"; {made.own_units} in the unit of the scorer" if made.own_units else ""
    said.append(f"Per cent, EB in points{own}.")
    if any(cell and cell.bounds for row in made.rows for cell in row.cells):
        said.append("In brackets: from all that is missing failed to all of it succeeded.")
    return said + unequal(group, made.turn)
