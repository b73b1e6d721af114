"""``mteval compare``: are two runs different?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mteval.errors import UsageError

if TYPE_CHECKING:
    from mteval.compare import Tables
    from mteval.store import RunFolder


def compare(
    first: Annotated[Path, typer.Argument(help="Run folder A.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Run folder B.", show_default=False)],
    turn: Annotated[int | None, typer.Option(help="The turn to print. [default: the last that both have]")] = None,
    output: Annotated[Path | None, typer.Option(help="CSV file for every turn.")] = None,
) -> int:
    """Compare two runs on the sessions they share: paired differences with intervals, McNemar's exact test.

    \b
    Example:
      mteval compare runs/tiny-kontext-shapes-0a1b2c3d runs/identity-shapes-4e5f6a7b --output differences.csv
    """
    from mteval import compare as comparing
    from mteval.report.numbers import OWN, unit_of
    from mteval.store import RunFolder, save_table

    a, b = RunFolder(first), RunFolder(second)
    shared = shared_scorers(a, b)
    measures = {name: info["measures"] for name, info in shared.items()}
    ranges = {name: (info["low"], info["high"]) for name, info in shared.items()}
    differences = comparing.compare(tables_of(a), tables_of(b), measures, ranges)
    last = int(differences["turn"].max())
    if turn is not None and not 1 <= turn <= last:
        raise UsageError(f"--turn {turn}: the runs share turns 1 to {last}")
    for letter, run in (("A", a), ("B", b)):
        typer.echo(f"{letter} = {run.config['model']} ({run.path})")
    here = (differences["turn"] == (turn or last)) | (differences["metric"] == "trajectory_score")
    shown = differences[here & (differences["n"] > 0)]
    typer.echo(f"turn {turn or last} of {a.config['benchmark']}, in points (PSNR in dB), with 95 % intervals\n")
    typer.echo(f"  {'':15}{'A':>7}{'B':>7}   {'A - B':23}{'p':>7}")
    for metric, rows in shown.groupby("metric", sort=False):
        typer.echo(str(metric) + f", {OWN.name}" * (unit_of(str(metric)) == OWN))
        for row in rows.itertuples():
            typer.echo(_line(row))
            if row.n_missing:
                typer.echo(_line_of_missing(row))
    if output:
        save_table(differences, output)
        typer.echo(f"\nevery turn: {output}")
    return 0


def tables_of(run: RunFolder) -> Tables:
    """The tables of a run, to compare it."""
    from mteval.compare import Tables
    from mteval.metrics import score_table, turn_table

    return Tables(turn_table(run.turn_records()), score_table(run.score_records()))


def shared_scorers(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """Name -> info of the scorers of both runs; refuses to compare what does not mean the same."""
    mine, theirs = a.config, b.config
    for what in ("id", "variant", "version"):
        one, other = mine["benchmark_info"][what], theirs["benchmark_info"][what]
        if one != other:
            raise UsageError(f"the runs are not comparable: benchmark {what} {one} and {other}")
    shared = [name for name in mine["scorers"] if name in theirs["scorers"]]
    if not shared:
        raise UsageError("the runs have no scorer in common: score both with `mteval score`")
    for name in shared:
        for what in ("scoring_version", "args", "revision"):
            one, other = mine["scorers"][name].get(what), theirs["scorers"][name].get(what)
            if one != other:
                raise UsageError(f"scores of {name} with {what} {one} and {other} cannot be compared: score one again")
    return {name: mine["scorers"][name] for name in shared}


def _line(row: Any) -> str:
    from mteval.report.numbers import unit_of

    unit = unit_of(row.metric)
    a, b, low, high = (unit.text(value) for value in (row.value_a, row.value_b, row.low, row.high))
    interval = f"{'+' * (row.difference > 0)}{unit.text(row.difference)} [{low}, {high}]"
    p_value = "<0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
    return f"  {row.protocol:15}{a:>7}{b:>7}   {interval:23}{p_value:>7}  {row.verdict}"


def _line_of_missing(row: Any) -> str:
    from mteval.report.numbers import unit_of

    unit = unit_of(row.metric)
    least, largest = unit.text(row.least), unit.text(row.largest)
    bounds = "" if math.isnan(row.least + row.largest) else f"; over all, A - B lies in {least} to {largest}"
    return f"  {'':15}{row.n_missing} missing in one at least{bounds}"
