"""The command line, thin: parse, call, print. One file a command; nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import Abort, TyperException

from mteval.cli import (
    bench,
    compare,
    doctor,
    export,
    importing,
    judge,
    leaderboard,
    listing,
    power,
    report,
    retry,
    run,
    score,
    serve,
    view,
)
from mteval.editors.base import Fatal
from mteval.errors import UsageError
from mteval.verdict import INTERRUPTED, TOO_MANY_ERRORS, USAGE

_RESUMES = "interrupted: nothing recorded is lost, the same command resumes"
_TYPER_INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    name="mteval",
    help="Measure how an image editor holds up over a conversation of edits. Start with: mteval run",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run", cls=run.InOrder)(run.run)
app.command("score")(score.score)
app.command("import")(importing.import_images)
app.command("retry")(retry.retry)
app.command("report")(report.report)
app.command("view")(view.view)
app.command("compare")(compare.compare)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("export")(export.export)
app.command("power")(power.power)
app.command("list")(listing.list_names)
app.add_typer(bench.app)
app.add_typer(judge.app)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The ``mteval`` program."""
    # "module:Class" may name a file in the current folder, as with `python -m`.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.exit(call(sys.argv[1:], app))


def call(arguments: Sequence[str], program: typer.Typer = app) -> int:
    """Run one command and return its exit code; what a person can mend is one line on stderr."""
    name = program.info.name or "mteval"
    try:
        code = int(program(list(arguments) or ["--help"], prog_name=name, standalone_mode=False) or 0)
        return _stop(name, _RESUMES, INTERRUPTED) if code == _TYPER_INTERRUPTED else code
    except UsageError as error:
        return _stop(name, str(error), USAGE)
    except TyperException as error:
        return _stop(name, error.format_message(), USAGE)
    except Fatal as error:
        return _stop(name, f"the editor cannot go on: {error}; the same command resumes", TOO_MANY_ERRORS)
    except (Abort, KeyboardInterrupt):
        return _stop(name, _RESUMES, INTERRUPTED)


def _stop(program: str, message: str, code: int) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return code
