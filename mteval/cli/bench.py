"""``mteval bench``: check a benchmark, or begin one of your own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mteval.cli import bench_make
from mteval.verdict import GOOD, USAGE

if TYPE_CHECKING:
    from mteval.benchmarks.base import Benchmark
    from mteval.benchmarks.check import Findings

_MOST_PROBLEMS = 10

app = typer.Typer(
    name="bench",
    help="Check a benchmark, or begin one of your own.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)


app.command("make")(bench_make.make)


@app.callback()
def bench(ctx: typer.Context) -> None:
    """Check a benchmark, or begin one of your own."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command("check")
def check(
    benchmark: Annotated[str, typer.Argument(help="Benchmark, or module:Class.", show_default=False)],
    benchmark_args: Annotated[list[str] | None, typer.Option(help="key=value,key=[a,b]. Repeatable.")] = None,
    turns: Annotated[int | None, typer.Option(min=1, help="Turns a session. [default: the longest]")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first sessions. [default: all]")] = None,
) -> int:
    """Load every session and image of a benchmark, and count them.

    Exit code 2 if anything is wrong; the first problems are listed.

    \b
    Example:
      mteval bench check shapes --limit 50
      mteval bench check files --benchmark-args path=my-sessions
      mteval bench check edival --benchmark-args csv=FILE,images=DIR
    """
    from mteval import registry
    from mteval.benchmarks.check import look_at
    from mteval.cli.run import _with_args

    named = _with_args(benchmark, None, benchmark_args or [])
    found: Benchmark = registry.create("benchmark", named["name"], named["args"])
    findings = look_at(found, turns, limit)
    _show(found, findings)
    for problem in findings.problems[:_MOST_PROBLEMS]:
        typer.echo(f"problem: {problem}", err=True)
    count = len(findings.problems)
    if count > _MOST_PROBLEMS:
        typer.echo(f"and {count - _MOST_PROBLEMS} more", err=True)
    typer.echo(f"{count} problems" if count else "no problem found", err=bool(count))
    return USAGE if count else GOOD


@app.command("init")
def init(folder: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)]) -> int:
    """Write a small working benchmark of your own to start from: two sessions, their images, the format.

    \b
    Example:
      mteval bench init my-sessions
    """
    from mteval.benchmarks.template import write

    for path in write(folder):
        typer.echo(path)
    typer.echo(f"now: mteval bench check files --benchmark-args {shlex.quote(f'path={folder}')}")
    return GOOD


def _show(benchmark: Benchmark, findings: Findings) -> None:
    from mteval.benchmarks.check import Fingerprinted

    info = benchmark.info
    lengths = ", ".join(f"{count} of {turns} turns" for turns, count in sorted(findings.lengths.items()))
    sizes = sorted(findings.sizes.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes[:3])
    rows: list[tuple[str, Any]] = [
        ("benchmark", f"{info.id}/{info.variant}" if info.variant else info.id),
        ("version", info.version),
        ("sessions", f"{findings.sessions} ({lengths}) from {findings.sources} start images"),
        ("images", shown + (f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else "")),
        ("references", f"{findings.references}" + (", one for every turn" if info.has_references else "")),
        ("scorers", ", ".join(info.scorers)),
    ]
    for name, value in rows:
        typer.echo(f"{name:10}  {value}")
    typer.echo("")
    _table(findings)
    if isinstance(benchmark, Fingerprinted):
        typer.echo("\nfingerprints (= as published)")
        for name, (here, published) in benchmark.fingerprints().items():
            mark = "=" if here == published else "!"
            typer.echo(f"{mark} {name}: {here}" + ("" if here == published else f", published {published}"))


def _table(findings: Findings) -> None:
    """Counts by type and turn."""
    turns = range(1, max(findings.lengths, default=0) + 1)
    types = sorted({kind for kind, _ in findings.types})
    lines: list[Sequence[Any]] = [("type", *(f"T{turn}" for turn in turns), "all")]
    for kind in types:
        counts = [findings.types.get((kind, turn), 0) for turn in turns]
        lines.append((kind, *counts, sum(counts)))
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(lines[0]))]
    for first, *rest in lines:
        cells = "  ".join(f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        typer.echo(f"{first:{widths[0]}}  {cells}")
