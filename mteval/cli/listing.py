"""``mteval list``: what there is to choose from."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mteval.errors import UsageError
from mteval.registry import Kind, names, nearest, resolve

_KINDS: dict[str, Kind] = {
    "editors": "editor",
    "benchmarks": "benchmark",
    "scorers": "scorer",
    "judges": "judge",
    "detectors": "detector",
    "encoders": "encoder",
    "readers": "reader",
}


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(help="editors, benchmarks, scorers, judges, detectors, encoders or readers. [default: all]"),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The editors as the table of docs/editors.md.")] = False,
) -> int:
    """List what there is: editors and judges with the line that uses them, benchmarks, scorers, perception.

    \b
    Example:
      mteval list editors
    """
    if kind is not None and kind not in _KINDS:
        raise UsageError(f"cannot list '{kind}': {nearest(kind, list(_KINDS))}")
    if markdown:
        from mteval.catalogue import table

        typer.echo(table())
        return 0
    for plural in [kind] if kind else list(_KINDS):
        typer.echo(f"{plural}:")
        if plural == "editors":
            _editors()
            continue
        if plural == "judges":
            _judges()
            continue
        found = names(_KINDS[plural])
        width = max(map(len, found))
        for name in found:
            typer.echo(f"  {name:{width}}  {_what(_KINDS[plural], name)}")
    return 0


def _what(kind: Kind, name: str) -> str:
    """The first sentence of its module's docstring, or why there is none."""
    try:
        cls = resolve(kind, name)
    except UsageError as error:  # one package that is broken hides no other
        return " ".join(str(error).split())
    words = " ".join((sys.modules[cls.__module__].__doc__ or cls.__qualname__).split("\n\n")[0].split())
    return words.partition(". ")[0].rstrip(".").replace("``", "")


def _editors() -> None:
    from mteval.catalogue import editors, groups

    width = max(len(entry.name) for entry in editors())
    for kind, entries in groups():
        typer.echo(f"  {kind}")
        for entry in entries:
            typer.echo(f"    {entry.name:{width}}  {entry.about.what}")
            if kind in ("open weights", "service"):
                typer.echo(f"    {'':{width}}  {'; '.join(entry.traits)}")
            if entry.command:
                typer.echo(f"    {'':{width}}  {entry.command}")


def _judges() -> None:
    found = names("judge")
    width = max(map(len, found))
    for name in found:
        try:
            cls = resolve("judge", name)
        except UsageError as error:  # one package that is broken hides no other
            typer.echo(f"  {name:{width}}  {' '.join(str(error).split())}")
            continue
        arguments = getattr(cls, "arguments", "")
        typer.echo(f"  {name:{width}}  {getattr(cls, 'about', cls.__name__)}")
        typer.echo(f"  {'':{width}}  --judge {name}{':' if arguments else ''}{arguments}")
