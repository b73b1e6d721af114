"""``mteval list``: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

from mteval.errors import UsageError
from mteval.registry import Kind, names, nearest

_KINDS: dict[str, Kind] = {"editors": "editor", "benchmarks": "benchmark", "scorers": "scorer"}


def list_names(
    kind: Annotated[str | None, typer.Argument(help="editors, benchmarks or scorers. [default: all]")] = None,
) -> int:
    """List editors, benchmarks and scorers, with the class behind each name.

    \b
    Example:
      mteval list editors
    """
    if kind is not None and kind not in _KINDS:
        raise UsageError(f"cannot list '{kind}': {nearest(kind, list(_KINDS))}")
    for plural in [kind] if kind else list(_KINDS):
        typer.echo(f"{plural}:")
        found = names(_KINDS[plural])
        width = max(map(len, found))
        for name, path in found.items():
            typer.echo(f"  {name:{width}}  {path}")
    return 0
