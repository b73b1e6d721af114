"""``mteval bench make``: draw multi-turn sessions from a folder of photos."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mteval.errors import Fatal, UsageError
from mteval.verdict import GOOD, TOO_MANY_ERRORS

if TYPE_CHECKING:
    from mteval.benchmarks.make import Made
    from mteval.judges.asking import Usage

_SHOWN = 5


def make(
    images: Annotated[Path, typer.Argument(help="A folder of photos.", show_default=False)],
    judge: Annotated[
        str | None, typer.Option(help="Who looks at them: openai:model=NAME,base_url=URL.", show_default=False)
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Leaves out objects that it does not see, for example grounding-dino.")
    ] = None,
    turns: Annotated[int, typer.Option(help="Turns a session, of a different type each.")] = 3,
    sessions_per_image: Annotated[int, typer.Option(help="Sessions a photo.")] = 1,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    split: Annotated[str, typer.Option(help="Shares of the photos in train, validation and test.")] = "0.8,0.1,0.1",
    output: Annotated[Path | None, typer.Option(help="Folder of the sessions. [default: IMAGES-sessions]")] = None,
) -> int:
    """Draw multi-turn sessions from your own photos, as EdiVal-Bench's agent draws its own.

    A judge lists the objects of each photo and makes up what is new; no type of edit comes twice in a session. The
    same command goes on where it was stopped. Exit code 1 if the judge does not answer, or no session could be made.

    \b
    Example:
      mteval bench make photos --judge openai:model=NAME,base_url=URL --output my-sessions
      mteval bench check files --benchmark-args path=my-sessions,split=train
    """
    from mteval import registry
    from mteval.benchmarks.make import Plan
    from mteval.benchmarks.make import make as make_sessions
    from mteval.cli.show import Bar
    from mteval.config import parse_named
    from mteval.judges.asking import opened

    plan = Plan(turns, sessions_per_image, seed, _shares(split))
    folder = output or Path(f"{images.resolve().name}-sessions")
    sight = None
    if detector is not None:
        named = parse_named(detector)
        sight = registry.create("detector", named.name, named.args)
    asker = opened(None if judge is None else parse_named(judge), "mteval bench make")
    try:
        with Bar("bench make") as bar:
            made = make_sessions(images, folder, plan, asker, sight, lambda done, total: bar("photos", done, total))
    except Fatal as error:
        raise UsageError(f"the judge cannot go on: {error}; the same command resumes") from error
    _show(made, asker.usage)
    if made.silent:
        typer.echo(f"the judge does not answer ({made.silent}); nothing is lost, the same command goes on", err=True)
    return TOO_MANY_ERRORS if made.silent or not made.sessions else GOOD


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--split is three shares that add up to 1, for example 0.8,0.1,0.1, not '{text}'") from error
    return train, validation, test


def _show(made: Made, usage: Usage) -> None:
    photos = len({session.source_id for session in made.sessions})
    splits = Counter(session.split for session in made.sessions)
    counts = ", ".join(f"{splits[split]} {split}" for split in ("train", "validation", "test"))
    typer.echo(
        f"{len(made.sessions)} sessions ({counts}) from {photos} photos, {made.new} of them new, in {made.folder}"
    )
    cost = f", ${usage.cost:.2f}" if usage.cost else ""
    typer.echo(f"the judge: {usage.calls} calls, {usage.hits} answers from the cache{cost}")
    if made.left_out:
        typer.echo(f"{len(made.left_out)} left out, all of them in {made.folder / 'made.json'}", err=True)
        for name, why in list(made.left_out.items())[:_SHOWN]:
            typer.echo(f"  {name}: {why}", err=True)
    if made.sessions:
        typer.echo(f"now: mteval bench check files --benchmark-args path={made.folder}")
