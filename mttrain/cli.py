"""The ``mttrain`` command line, thin: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

STOPPED = 4  # a guard ended the training

app = typer.Typer(
    name="mttrain",
    help="Train image editors to hold up over a conversation of edits.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="steps=50 optimizer.lr=1e-4")
    ] = None,
) -> int:
    """Fine-tune an editor over whole conversations; the same command resumes.

    Example: mttrain run tiny-nft steps=100 output=runs/mine
    then:    mteval run --model flux-kontext --model-args pretrained=runs/mine/trained
    """
    from mttrain.recipe import load

    loaded = load(recipe, overrides or ())
    _prepare_torch()
    from mttrain.finish import finish
    from mttrain.progress import Bars
    from mttrain.trainer import Stopped, Trainer

    try:
        with Bars() as bars:
            trainer = Trainer(loaded, loaded.output)
            trainer.run(lambda stage, done, total, figures: bars.update(stage, done, total, _told(figures)))
            finish(trainer)
    except Stopped as guard:
        print(f"mttrain: stopped: {guard}; the last good checkpoint is in {loaded.output}", file=sys.stderr)
        return STOPPED
    return 0


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Print what a recipe does and takes: batches, network passes, memory, time, the command for 1, 8 and 32 GPUs.

    Example: mttrain plan flux-kontext-nft rollout.groups=32
    """
    from mttrain.recipe import load

    loaded = load(recipe, overrides or ())
    _prepare_torch()
    from rich.console import Console
    from rich.table import Table

    from mttrain.plan import rows

    table = Table(title=recipe, title_justify="left", show_header=False)
    for what, told in rows(loaded, " ".join([recipe, *(overrides or ())])):
        table.add_row(what, told)
    Console().print(table)


@app.command("export")
def export_run(
    run: Annotated[Path, typer.Argument(help="The folder of a training run.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    merged: Annotated[bool, typer.Option("--merged", help="Merge a LoRA into a whole pipeline folder.")] = False,
    push: Annotated[str | None, typer.Option(help="Upload to this repository of the Hugging Face Hub.")] = None,
) -> None:
    """Write the weights that validation chose as a diffusers folder with a model card.

    Example: mttrain export runs/flux-kontext-nft --output my-lora
    then:    mteval run --model flux-kontext --model-args lora=my-lora
    """
    from mteval.errors import UsageError
    from mttrain.recipe import reopen

    loaded = reopen(run)
    _prepare_torch()
    from mttrain.export import BEST, export, upload
    from mttrain.trainer import STATE, Trainer

    if not (run / BEST).is_file() and not (run / STATE).is_file():
        raise UsageError(f"{run} has no checkpoint yet: nothing is trained that could be written")
    print(f"wrote {export(Trainer(loaded, run).policy, loaded, run, output, merged)}")
    if push:
        print(f"uploaded to {upload(output, push)}")


def _prepare_torch() -> None:
    """Before torch is imported: waiting threads must not take the cores."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from mteval.editors.loading import pick_device
    from mteval.editors.quiet import quiet

    quiet()
    pick_device("cpu")  # cuts the pool to the free cores


def _told(figures: Mapping[str, float]) -> dict[str, float]:
    """What of an iteration's figures fits beside a progress bar: rewards averaged over turns, and the validation."""
    rewards: dict[str, list[float]] = {}
    for name, value in figures.items():
        if name.startswith("reward/"):
            rewards.setdefault(name.removeprefix("reward/").partition("@")[0], []).append(value)
    shown = {name: sum(values) / len(values) for name, values in rewards.items()}
    validation = {name: figures[f"validation/{name}"] for name in _WATCHED if f"validation/{name}" in figures}
    return shown | validation or {name: figures[name] for name in ("loss",) if name in figures}


_WATCHED = ("turn_success@3", "overall@3")


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
    _prepare_torch()
    from dataclasses import replace

    import torch

    from mttrain.pretrain import PretrainSettings
    from mttrain.pretrain import pretrain as run
    from mttrain.progress import Bars

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
