"""``mteval import``: images made elsewhere, scored like any run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

_SHOWN = 5


def import_images(
    layout: Annotated[
        str, typer.Argument(help="plain, edival, edival-singlepass, lme, edival-results.", show_default=False)
    ],
    folder: Annotated[Path, typer.Argument(help="Where the images are.", show_default=False)],
    name: Annotated[str, typer.Option(help="Of the editor, as reports show it.")] = "imported",
    benchmark: Annotated[str | None, typer.Option(help="Benchmark, or module:Class. [default: shapes]")] = None,
    benchmark_args: Annotated[list[str] | None, typer.Option(help="key=value,key=[a,b]. Repeatable.")] = None,
    turns: Annotated[int | None, typer.Option(help="Turns a session. [default: the benchmark's]")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first sessions. [default: the benchmark's]")] = None,
    scorers: Annotated[
        list[str] | None, typer.Option(help="name or name:key=value; none = no scoring. Repeatable.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Of scorers that ask one: openai:model=NAME,base_url=URL.")] = None,
    fail_on_error: Annotated[
        str | None, typer.Option(help="Exit 1 above this share (5%) or count (5) of errors. [default: 5%]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The run folder.")] = None,
) -> int:
    """Make a run of finished images: check that they are all there, then score them.

    \b
    Layouts:
      plain              SESSION/1.png, SESSION/2.png ...
      edival             multipass/SESSION_input_raw_turn_1.png ...
      edival-singlepass  singlepass/SESSION_input_raw_turn_1.png ...
      lme                SESSION/turn1.png ...
      edival-results     what EdiVal's own eval.py wrote: verdicts and values without images, nothing is judged again

    \b
    Example:
      mteval import plain my-images --name my-editor --turns 3 --limit 50
      mteval import edival-results evaluate_results/my-editor --name my-editor
    """
    from mteval.cli.run import _scorers, _with_args, verdict
    from mteval.cli.show import Bar, summary
    from mteval.config import build, parse_named
    from mteval.errors import UsageError
    from mteval.evaluation import execute
    from mteval.importing import LAYOUTS, Imported, find
    from mteval.plan import prepare

    if layout == "edival-results":
        from mteval.edival_results import write_run

        asked = {"--benchmark": benchmark, "--turns": turns, "--limit": limit, "--scorers": scorers, "--judge": judge}
        ignored = [flag for flag, value in {**asked, "--benchmark-args": benchmark_args}.items() if value is not None]
        if ignored:
            raise UsageError(f"edival-results are read as they are: leave out {', '.join(ignored)}")
        summary([write_run(folder, name, output)])
        return 0
    settings: dict[str, Any] = {
        "model": {"name": name, "args": {}},
        "benchmark": _with_args("shapes", benchmark, benchmark_args or []),
        "turns": turns,
        "limit": limit,
        "scorers": _scorers(scorers) if scorers else None,
        "judge": parse_named(judge).model_dump() if judge else None,
        "fail_on_error": fail_on_error,
        "output": output,
        "on_missing": "carry",
        "protocol": [LAYOUTS[layout].protocol] if layout in LAYOUTS else None,
    }
    (config,) = build({key: value for key, value in settings.items() if value is not None})
    plan = prepare(config, editor_is_built=True)
    found = find(folder, layout, plan.sessions)
    editor = Imported(name, found)
    there = len(found.images)
    typer.echo(f"{there} images of {there + len(found.missing)} for {len(plan.sessions)} sessions", err=True)
    _warn("missing", [f"{session} turn {turn}" for session, turn in found.missing])
    _warn("not asked for", [str(path.relative_to(folder)) for path in found.others])
    with Bar(name) as bar:
        run = execute(plan, editor, progress=bar)
    odd = {sizes: count for sizes, count in editor.sizes.items() if sizes[0] != sizes[1]}
    if odd:
        (before, after), count = max(odd.items(), key=lambda item: item[1])
        more = f"{sum(odd.values())} images are not of the size of the image before them"
        typer.echo(f"{more}, most of them {_words(after)} after {_words(before)} ({count})", err=True)
    summary([run])
    return verdict([run], [config])


def _warn(what: str, names: Sequence[str]) -> None:
    if names:
        shown = ", ".join(names[:_SHOWN])
        typer.echo(f"{len(names)} {what}: {shown}{' ...' if len(names) > _SHOWN else ''}", err=True)


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
