"""``mteval compare``: are two runs different?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(help="Run folder A.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Run folder B.", show_default=False)],
) -> int:
    """Compare two runs on the sessions they share: paired differences with intervals, McNemar's exact test.

    \b
    Example:
      mteval compare runs/tiny-kontext-shapes-0a1b2c3d runs/identity-shapes-4e5f6a7b
    """
    from mteval.store import RunFolder

    a, b = RunFolder(first), RunFolder(second)
    return 0
