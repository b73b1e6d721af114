"""``mteval compare``: are two runs different?"""

from __future__ import annotations

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
    from mteval.store import RunFolder, save_table

    a, b = RunFolder(first), RunFolder(second)
    differences = comparing.compare(_tables(a), _tables(b), _shared_measures(a, b))
    last = int(differences["turn"].max())
    if turn is not None and not 1 <= turn <= last:
        raise UsageError(f"--turn {turn}: the runs share turns 1 to {last}")
    for letter, run in (("A", a), ("B", b)):
        typer.echo(f"{letter} = {run.config['model']} ({run.path})")
    shown = differences[(differences["turn"] == (turn or last)) & (differences["n"] > 0)]
    typer.echo(f"turn {turn or last} of {a.config['benchmark']}, in points (PSNR in dB), with 95 % intervals\n")
    typer.echo(f"  {'':15}{'A':>7}{'B':>7}   {'A - B':23}{'p':>7}")
    for metric, rows in shown.groupby("metric", sort=False):
        typer.echo(str(metric))
        for row in rows.itertuples():
            typer.echo(_line(row))
    if output:
        save_table(differences, output)
        typer.echo(f"\nevery turn: {output}")
    return 0


def _tables(run: RunFolder) -> Tables:
    from mteval.compare import Tables
    from mteval.metrics import score_table, turn_table

    return Tables(turn_table(run.turn_records()), score_table(run.score_records()))


def _shared_measures(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """Scorer -> what it measures, of the scorers of both runs; refuses to compare what does not mean the same."""
    mine, theirs = a.config, b.config
    for what in ("id", "variant", "version"):
        one, other = mine["benchmark_info"][what], theirs["benchmark_info"][what]
        if one != other:
            raise UsageError(f"the runs are not comparable: benchmark {what} {one} and {other}")
    shared = [name for name in mine["scorers"] if name in theirs["scorers"]]
    if not shared:
        raise UsageError("the runs have no scorer in common: score both with `mteval score`")
    for name in shared:
        for what in ("scoring_version", "args"):
            one, other = mine["scorers"][name][what], theirs["scorers"][name][what]
            if one != other:
                raise UsageError(f"scores of {name} with {what} {one} and {other} cannot be compared: score one again")
    return {name: mine["scorers"][name]["measures"] for name in shared}


def _line(row: Any) -> str:
    scale = 1 if row.metric == "reference_psnr" else 100
    a, b, difference, low, high = (
        scale * value for value in (row.value_a, row.value_b, row.difference, row.low, row.high)
    )
    interval = f"{difference:+.1f} [{low:.1f}, {high:.1f}]"
    p_value = "<0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
    return f"  {row.protocol:15}{a:7.1f}{b:7.1f}   {interval:23}{p_value:>7}  {row.verdict}"
