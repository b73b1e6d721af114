"""``mteval score``: judge stored images again, or with other scorers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def score(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    scorers: Annotated[
        list[str] | None, typer.Option(help="name or name:key=value. Repeatable. [default: those of the run]")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Of scorers that ask one: openai:model=NAME,base_url=URL.")] = None,
) -> int:
    """Judge the stored images of runs, again or with other scorers; old scores of these scorers are replaced.

    \b
    Example:
      mteval score runs/tiny-kontext-shapes-0a1b2c3d --scorers shapes-if --scorers reference-psnr
      mteval score runs/tiny-kontext-shapes-0a1b2c3d --scorers vlm-if:mode=thinking --judge openai:model=gpt-5.2
    """
    from mteval.cli.run import verdict
    from mteval.cli.show import Bar, summary
    from mteval.config import Named, parse_named
    from mteval.evaluation import rescore
    from mteval.plan import prepare, reopen, with_another_judge

    named: tuple[Named, ...] | None = tuple(parse_named(text) for text in scorers) if scorers else None
    configs = [reopen(path) for path in runs]
    if named is not None:
        configs = [config.model_copy(update={"scorers": named}) for config in configs]
    if judge is not None:
        configs = [with_another_judge(config, parse_named(judge)) for config in configs]
    plans = [prepare(config, editor_is_built=True, replaces_scores=True) for config in configs]
    done = []
    for plan in plans:
        with Bar(plan.config.model.label) as bar:
            done.append(rescore(plan, bar))
    summary(done)
    return verdict(done, configs)
