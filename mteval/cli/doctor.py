"""``mteval doctor``: everything a run needs, checked before it starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer

from mteval.errors import UsageError
from mteval.verdict import GOOD, USAGE

if TYPE_CHECKING:
    from mteval.config import RunConfig

_NEEDED = ("torch", "diffusers", "transformers", "numpy", "pandas", "PIL", "pydantic", "yaml", "jinja2", "skimage")


def doctor(
    model: Annotated[str, typer.Option(help="The editor to try.")] = "tiny-kontext",
    model_args: Annotated[list[str] | None, typer.Option(help="key=value,key=[a,b]. Repeatable.")] = None,
    benchmark: Annotated[str, typer.Option(help="The benchmark to try.")] = "shapes",
) -> int:
    """Check what a run needs: packages, folder, benchmark, scorers, the model's weights, one edit of it.

    \b
    Example:
      mteval doctor --model flux-kontext --model-args pretrained=./FLUX.1-Kontext-dev
    """
    from mteval.config import Model, Named, RunConfig, parse_arguments

    args = {key: value for text in model_args or [] for key, value in parse_arguments(text).items()}
    config = RunConfig(model=Model(name=model, args=args), benchmark=Named(name=benchmark), limit=1, turns=1)
    steps: list[tuple[str, Callable[[], str]]] = [
        ("packages", _packages),
        ("accelerator", _accelerator),
        ("plan", lambda: _plan(config)),
        ("one edit", lambda: _edit(config)),
    ]
    code = GOOD
    for name, step in steps:
        try:
            found, mark = step(), "ok "
        except UsageError as error:
            found, mark, code = str(error), "BAD", USAGE
        typer.echo(f"{mark} {name:12} {found}")
    return code


def _packages() -> str:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"missing: {', '.join(missing)}; install them with `pip install mteval`")
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "pandas"))


def _accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return f"none: the CPU with {torch.get_num_threads()} threads"


def _plan(config: RunConfig) -> str:
    from mteval.plan import prepare

    plan = prepare(config)
    scorers = ", ".join(scorer.info.id for _, scorer in plan.scorers)
    sessions = f"{plan.benchmark_label} with {plan.benchmark.info.size} sessions"
    return f"{sessions}; {scorers}; {plan.folder.parent} can be written"


def _edit(config: RunConfig) -> str:
    from mteval.cli.estimate import first_edits
    from mteval.evaluation import build_editor
    from mteval.plan import prepare

    plan = prepare(config)
    (result,), seconds = first_edits(plan, build_editor(plan), 1)
    if result.error:
        raise UsageError(f"{type(result.error).__name__}: {result.error}")
    return f"{config.model.label} edits an image in {seconds:.2f} s"
