"""The ``mttrain`` command line, thin: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="mttrain",
    help="Train image editors to hold up over a conversation of edits.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Keeps the sub-command's name while there is only one."""


@app.command()
def pretrain(
    output: Annotated[Path, typer.Option(help="The diffusers folder to write.")] = Path("tiny-kontext"),
    work: Annotated[Path | None, typer.Option(help="Checkpoints and curves; default: OUTPUT-work.")] = None,
    level: Annotated[str, typer.Option(help="Level of ShapesEdit.")] = "standard",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the transformer.")] = None,
    codec_steps: Annotated[int | None, typer.Option(min=1, help="Steps of the codec.")] = None,
    sessions: Annotated[int | None, typer.Option(min=1, help="Sessions of the train split to learn from.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: the free cores.")] = None,
) -> None:
    """Train tiny-kontext from nothing on ShapesEdit's train split; the same command resumes.

    Example: mttrain pretrain --output my-kontext
    then:    mteval run --model flux-kontext --model-args pretrained=my-kontext
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not take the cores
    from dataclasses import replace

    from mteval.editors.flow import pick_device
    from mteval.editors.quiet import quiet

    quiet()
    import torch

    from mttrain.pretrain import PretrainSettings
    from mttrain.pretrain import pretrain as run
    from mttrain.progress import Bars

    pick_device("cpu")  # cuts the pool to the free cores
    if threads:
        torch.set_num_threads(threads)
    settings = PretrainSettings(level=level, seed=seed)
    settings = replace(
        settings,
        sessions=sessions or settings.sessions,
        codec=replace(settings.codec, steps=codec_steps or settings.codec.steps),
        flow=replace(settings.flow, steps=steps or settings.flow.steps),
    )
    with Bars() as bars:
        result = run(output, work or output.with_name(f"{output.name}-work"), settings, bars.update)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result.items())
    print(f"wrote {output} ({figures})")


def main() -> None:
    """The ``mttrain`` program; exit codes as in mteval."""
    from mteval.cli import call

    sys.exit(call(sys.argv[1:], app))
