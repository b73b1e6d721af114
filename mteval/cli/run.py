"""``mteval run``: evaluate one or more models; the same command resumes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from mteval.errors import UsageError
from mteval.verdict import ASSERT_FAILED, GOOD, TOO_MANY_ERRORS

if TYPE_CHECKING:
    from mteval.config import RunConfig
    from mteval.evaluation import Run

_ARGV = "mteval.argv"


class InOrder(TyperCommand):
    """Keeps the raw arguments: ``--model-args`` and ``--title`` belong to the ``--model`` before them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_ARGV] = list(args)
        return super().parse_args(ctx, args)


def run(
    ctx: typer.Context,
    model: Annotated[list[str] | None, typer.Option(help="Editor, or module:Class. Repeatable.")] = None,
    model_args: Annotated[
        list[str] | None, typer.Option(help="key=value,key=[a,b] for the --model before it. Repeatable.")
    ] = None,
    title: Annotated[list[str] | None, typer.Option(help="What tables call the --model before it. Repeatable.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark, or module:Class. [default: shapes]")] = None,
    benchmark_args: Annotated[list[str] | None, typer.Option(help="key=value,key=[a,b]. Repeatable.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file, or a shipped suite; flags win.")] = None,
    turns: Annotated[int | None, typer.Option(help="Turns a session. [default: the benchmark's]")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first sessions. [default: the benchmark's]")] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="free-running, teacher-forced, single-shot. Repeatable. [default: all]")
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Runs of each session. [default: 1]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sessions a call. [default: the editor's]")] = None,
    device: Annotated[str | None, typer.Option(help="For editors that take one, for example cuda:0.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16, for editors that take it.")] = None,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    seed_policy: Annotated[str | None, typer.Option(help="per-turn, per-session, fixed. [default: per-turn]")] = None,
    on_missing: Annotated[
        str | None, typer.Option(help="After a turn without image: stop, or carry the last one. [default: stop]")
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(help="Images shown, if the editor takes several: last, first+last, all. [default: last]"),
    ] = None,
    scorers: Annotated[
        list[str] | None, typer.Option(help="name or name:key=value; none = no scoring. Repeatable.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Of scorers that ask one: openai:model=NAME,base_url=URL; `mteval list judges`.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Calls side by side. [default: the editor's]")] = None,
    retries: Annotated[
        int | None, typer.Option(help="Further tries of an edit that failed in passing. [default: 5]")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop before the run costs more US dollars.")] = None,
    fail_on_error: Annotated[
        str | None, typer.Option(help="Exit 1 above this share (5%) or count (5) of errors. [default: 5%]")
    ] = None,
    asserts: Annotated[
        list[str] | None, typer.Option("--assert", help="Exit 100 unless it holds: turn_success@3>=0.4. Repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The run folder; with several models the folder that holds theirs.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print calls, images, time and cost; run nothing.")
    ] = False,
) -> int:
    """Evaluate one or more models; the same command resumes.

    With no option: tiny-kontext on ShapesEdit test, 3 turns, 200 sessions, all protocols.

    \b
    Example:
      mteval run --model tiny-kontext --model synthetic --model-args success=0.8,drift=2 \\
                 --turns 5 --limit 100 --assert 'turn_success@3>=0.4'

    \b
    Exit codes: 0 good; 1 too many errors, or the editor gave up; 2 wrong usage;
    3 interrupted; 100 an --assert failed.
    """
    from mteval.cli.show import Bar, summary
    from mteval.config import build, parse_named, read_yaml
    from mteval.plan import RUNS, prepare
    from mteval.suites import locate

    settings = read_yaml(locate(config)) if config else {}
    if settings:
        build(settings, str(config))
    flags = {
        "model": _models(ctx.meta[_ARGV], settings.get("model", "tiny-kontext")),
        "benchmark": _with_args(settings.get("benchmark", "shapes"), benchmark, benchmark_args or []),
        "scorers": _scorers(scorers) if scorers else None,
        "judge": parse_named(judge).model_dump() if judge else None,
        "protocol": protocol,
        "turns": turns,
        "limit": limit,
        "repeats": repeats,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
        "seed": seed,
        "seed_policy": seed_policy,
        "on_missing": on_missing,
        "context": context,
        "concurrency": concurrency,
        "retries": retries,
        "max_cost": max_cost,
        "fail_on_error": fail_on_error,
        "assert": asserts,
        "output": output,
    }
    configs = build({**settings, **{key: value for key, value in flags.items() if value is not None}})
    root = RUNS
    if len(configs) > 1:
        root = configs[0].output or RUNS
        configs = [item.model_copy(update={"output": None}) for item in configs]
    plans = [prepare(item, root=root) for item in configs]
    if dry_run:
        from mteval.cli.estimate import estimate

        for plan in plans:
            estimate(plan)
        return GOOD

    from mteval.evaluation import build_editor, execute, options_of

    editors = deque(build_editor(plan) for plan in plans)  # all of them first: a late one may lack its weights
    for plan, editor in zip(plans, editors, strict=True):
        options_of(plan, editor)  # and what a late one cannot do is told now
    runs = []
    for plan in plans:
        for note in plan.notes:
            typer.echo(f"note: {note}", err=True)
        with Bar(plan.config.model.label) as bar:
            runs.append(execute(plan, editors.popleft(), progress=bar))
    summary(runs)
    if len(runs) > 1:
        from mteval.cli.report import joint

        joint(runs, root)
    return verdict(runs, configs)


def verdict(runs: Sequence[Run], configs: Sequence[RunConfig]) -> int:
    """Print what the caller's conditions say about the runs, and return the exit code."""
    from mteval.verdict import Condition, Tolerance

    code = GOOD
    for done, config in zip(runs, configs, strict=True):
        failed = [Condition.parse(text).failed(done.metrics) for text in config.asserts]
        for message in filter(None, failed):
            typer.echo(f"{config.model.label}: {message}", err=True)
            code = code or ASSERT_FAILED
        turns, scores = done.folder.turn_records(), done.folder.score_records()
        problem = Tolerance.parse(config.fail_on_error).exceeded(turns, scores)
        if problem:
            typer.echo(f"{config.model.label}: {problem}", err=True)
            code = TOO_MANY_ERRORS
    return code


def _models(argv: Sequence[str], base: Any) -> list[Any]:
    """The models as typed, each with what belongs to it; without ``--model`` the arguments join those of ``base``."""
    from mteval.config import parse_arguments

    models: list[dict[str, Any]] = []
    early: dict[str, Any] = {}
    for option, value in _options(argv, ("--model", "--model-args", "--title")):
        if option == "--model":
            models.append({"name": value, "args": {}})
        elif option == "--title":
            (models[-1] if models else early)["title"] = value
        else:
            (models[-1] if models else early).setdefault("args", {}).update(parse_arguments(value))
    if models and early:
        raise UsageError(
            f"--model-args and --title belong to the --model before them: move them behind --model {models[0]['name']}"
        )
    if models:
        return models
    bases = list(base) if isinstance(base, list | tuple) else [base]
    if early and len(bases) > 1:
        raise UsageError("--model-args or --title without --model, but the configuration has several models")
    args = early.pop("args", {})
    return [_with_args(item, None, [args]) | early for item in bases]


def _options(argv: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) of some options in the order in which they were typed."""
    tokens = iter(argv)
    for token in tokens:
        option, equals, value = token.partition("=")
        if option in names:
            yield option, value if equals else next(tokens)


def _with_args(base: Any, name: str | None, given: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """A name and its arguments: those of the configuration file, unless a flag names another, and then those typed."""
    from mteval.config import parse_arguments

    start = base if isinstance(base, dict) else {"name": base}
    if name not in (None, start["name"]):
        start = {"name": name}
    args = dict(start.get("args", {}))
    for item in given:
        args.update(parse_arguments(item) if isinstance(item, str) else item)
    return {**start, "args": args}


def _scorers(typed: Sequence[str]) -> list[dict[str, Any]]:
    from mteval.config import parse_named

    if "none" not in typed:
        return [parse_named(text).model_dump() for text in typed]
    if len(typed) > 1:
        raise UsageError("--scorers none stands alone")
    return []
