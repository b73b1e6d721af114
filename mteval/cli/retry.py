"""``mteval retry``: do again what went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def retry(runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)]) -> int:
    """Do every blocked or failed turn again, with the later turns of its session, and judgements that failed.

    `mteval run` resumes what is missing and leaves recorded failures alone; this forgets them first.

    \b
    Example:
      mteval retry runs/tiny-kontext-shapes-0a1b2c3d
    """
    from mteval import evaluation
    from mteval.cli.run import verdict
    from mteval.cli.show import Bar, summary
    from mteval.plan import prepare, reopen

    plans = [prepare(reopen(path)) for path in runs]
    done = []
    for plan in plans:
        with Bar(plan.config.model.label) as bar:
            done.append(evaluation.retry(plan, bar))
    summary(done)
    return verdict(done, [plan.config for plan in plans])
