"""``mteval view``: the site of runs while they go on, or a run as a labelling tool, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mteval.errors import UsageError
from mteval.verdict import GOOD

if TYPE_CHECKING:
    from mteval.serve.labelling import Labelling


def view(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; with --label one.", show_default=False)],
    host: Annotated[str, typer.Option(help="Any but this machine's own (127.0.0.1) needs a --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.")] = 8770,
    token: Annotated[
        str | None,
        typer.Option(help="The password that the browser asks for.", envvar="MTEVAL_TOKEN", show_default=False),
    ] = None,
    label: Annotated[bool, typer.Option("--label", help="Label its turns by keyboard, blind to the model.")] = False,
    labels: Annotated[Path, typer.Option(help="CSV that every label is added to.")] = Path("labels.csv"),
    labeller: Annotated[
        str | None, typer.Option(help="Whose labels these are.", envvar="USER", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order in which turns are labelled.")] = 0,
) -> int:
    """Show runs in the browser, also while they go on, until Ctrl-C; nothing is written into a run folder.

    With --label, one turn at a time is shown without the model and without any verdict: 1 done, 0 not done, u cannot
    tell, Backspace takes the last answer back. The same command goes on where it stopped, and `mteval judge calibrate
    --labels` reads the CSV. People who share it are told how far they agree.

    \b
    Example:
      mteval view runs/tiny-kontext-shapes-0a1b2c3d runs/identity-shapes-4e5f6a7b
      mteval view runs/tiny-kontext-shapes-0a1b2c3d --label --labeller anna --labels labels.csv
    """
    if label:
        return _label(runs, host, port, token, labels, labeller, seed)
    from mteval.serve.view import View

    shown = View(runs)
    try:
        _serve(shown, host, port, token, "the report")
    finally:
        shown.close()
    return GOOD


def _label(
    runs: list[Path], host: str, port: int, token: str | None, labels: Path, labeller: str | None, seed: int
) -> int:
    from mteval.serve.labelling import Book, Labelling
    from mteval.store import RunFolder

    if len(runs) > 1:
        raise UsageError("--label takes one run, because a line of its CSV does not say of which run it is")
    if not labeller or not labeller.strip():
        raise UsageError("give --labeller NAME: labels of several people are kept apart by it")
    tool = Labelling(RunFolder(runs[0]), Book(labels), labeller.strip(), seed)
    typer.echo(_progress(tool, labels))
    _serve(tool, host, port, token, "the labelling page")
    typer.echo(_progress(tool, labels))
    for line in tool.agreement():
        typer.echo(line)
    return GOOD


def _progress(tool: Labelling, labels: Path) -> str:
    return f"{len(tool.done())} of {len(tool.questions)} labelled in {labels}"


def _serve(service: Any, host: str, port: int, token: str | None, what: str) -> None:
    from mteval.serve.view import page_server

    with page_server(service, host, port, token) as server:
        typer.echo(f"{what} is at {server.url} until Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("stopped")
