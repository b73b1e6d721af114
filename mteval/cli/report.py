"""``mteval report``: metrics, tables and page again from the records; a joint page of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mteval.store import LEADERBOARD, REPORT, save_table

if TYPE_CHECKING:
    from mteval.evaluation import Run


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the joint report of several runs. [default: their parent]"),
    ] = None,
    site: Annotated[
        bool,
        typer.Option(
            "--site", help="A folder with every session to look through, in place of one page. [default: site]"
        ),
    ] = False,
    sessions: Annotated[
        int | None,
        typer.Option(min=1, help="How many sessions a page shows at most; a site has all. [default: 30]"),
    ] = None,
) -> int:
    """Write metrics, leaderboard and report again from the records; for several runs a joint report too.

    \b
    Example:
      mteval report runs/tiny-kontext-shapes-0a1b2c3d runs/identity-shapes-4e5f6a7b --output comparison
      mteval report runs/tiny-kontext-shapes-0a1b2c3d --site -o comparison   # open comparison/index.html
    """
    from mteval.evaluation import summarise
    from mteval.store import RunFolder, RunWriter

    folders = [RunFolder(path) for path in runs]
    done = []
    for folder in folders:
        with RunWriter(folder.path) as writer:
            done.append(summarise(writer, sessions))
        typer.echo(f"report       {folder.path / REPORT}\nleaderboard  {folder.path / LEADERBOARD}")
    if site:
        whole_site(done, output or folders[0].path.absolute().parent / "site")
    elif len(done) > 1 or output:
        joint(done, output or folders[0].path.absolute().parent, sessions)
    return 0


def joint(runs: Sequence[Run], folder: Path, sessions: int | None = None) -> None:
    """Write one report.html and leaderboard.csv of several runs into ``folder``."""
    from mteval.report import csv, html

    folder.mkdir(parents=True, exist_ok=True)
    folders = [run.folder for run in runs]
    save_table(csv.leaderboard(folders), folder / LEADERBOARD)
    html.write(folders, folder / REPORT, sessions)
    typer.echo(f"joint report       {folder / REPORT}\njoint leaderboard  {folder / LEADERBOARD}")


def whole_site(runs: Sequence[Run], folder: Path) -> None:
    """Write the site of one or several runs into ``folder``, with its leaderboard.csv."""
    from mteval.report import csv
    from mteval.report import site as pages

    folders = [run.folder for run in runs]
    pages.write(folders, folder)
    save_table(csv.leaderboard(folders), folder / LEADERBOARD)
    typer.echo(f"site               {folder / pages.PAGE}\nits leaderboard    {folder / LEADERBOARD}")
