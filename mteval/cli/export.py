"""``mteval export``: tables, figures and data frames of runs, for a paper or a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mteval.errors import UsageError


def export(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("export"),
    formats: Annotated[
        str, typer.Option(help="What to write; figures and parquet need mteval[export].")
    ] = "csv,md,tex,figures,parquet",
) -> int:
    """Write what a paper or a notebook takes from runs: CSV, Markdown, LaTeX, figures (PNG and SVG), parquet.

    \b
    Example:
      mteval export runs/* -o paper --formats tex,figures
    """
    from mteval.report import export as writing
    from mteval.store import RunFolder

    wanted = [name.strip() for name in formats.split(",") if name.strip()]
    if not wanted:
        raise UsageError(f"--formats is empty: choose from {','.join(writing.FORMATS)}")
    writing.check(output, wanted)
    folders = [RunFolder(path) for path in runs if not path.is_file()]
    if not folders:
        raise UsageError("no run folder is named: `mteval export runs/*`")
    for file in writing.export(folders, output, wanted):
        typer.echo(str(file))
    return 0
