"""``mteval leaderboard``: one tidy table of many runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="CSV file. [default: print it]")] = None,
) -> int:
    """Join the numbers of many runs into one CSV, one number a row.

    \b
    Example:
      mteval leaderboard runs/* --output leaderboard.csv
    """
    from mteval.report import csv
    from mteval.store import RunFolder, save_table

    table = csv.leaderboard([RunFolder(path) for path in runs if not path.is_file()])
    save_table(table, output or sys.stdout)
    if output:
        typer.echo(str(output))
    return 0
