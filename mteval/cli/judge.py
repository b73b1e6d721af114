"""``mteval judge``: can a judge be trusted?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mteval.errors import UsageError
from mteval.verdict import GOOD

if TYPE_CHECKING:
    import pandas as pd

    from mteval.labels import Labels
    from mteval.plan import Plan
    from mteval.scorers.base import TurnView

app = typer.Typer(
    name="judge",
    help="Can a judge be trusted?",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)


@app.callback()
def judge_commands(ctx: typer.Context) -> None:
    """Can a judge be trusted?"""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command("calibrate")
def calibrate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, whose images are judged.", show_default=False)],
    scorer: Annotated[str, typer.Option(help="The scorer that asks the judge, with its arguments.")] = "vlm-if",
    judge: Annotated[str | None, typer.Option(help="openai:model=NAME,base_url=URL; `mteval list judges`.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV with the columns session, turn, label.")] = None,
    truth: Annotated[
        str | None, typer.Option(help="Scorer of the runs whose verdicts are the labels. [default: the exact one]")
    ] = None,
    labelled: Annotated[int | None, typer.Option(min=1, help="Use the labels of so many sessions only.")] = None,
    retest: Annotated[int, typer.Option(min=0, help="Ask so often about the same turns; 0 = do not.")] = 3,
    probes: Annotated[int, typer.Option(min=0, help="Turns that known-answer probes are made of.")] = 60,
    output: Annotated[Path, typer.Option(help="Folder for the tables as CSV.")] = Path("calibration"),
) -> int:
    """Measure a judge against labels: agreement, kappa, confusion, bias by turn and model, noise, known answers.

    The labels are a person's (--labels), or the verdicts of an exact scorer as on ShapesEdit (--truth). What follows
    for the success rates is printed beside the raw ones, corrected and with intervals.

    \b
    Example:
      mteval judge calibrate runs/tiny-kontext-shapes-0a1b2c3d --judge openai:model=m,base_url=http://127.0.0.1:8766/v1
      mteval judge calibrate runs/mine --scorer vlm-if:mode=thinking --judge openai:model=gpt-5.2 --labels labels.csv
    """
    from mteval import calibrating, calibration
    from mteval import labels as labelling
    from mteval.cli.calibration import show
    from mteval.cli.show import Bar
    from mteval.config import parse_named
    from mteval.evaluation import rescore
    from mteval.plan import prepare, reopen, with_another_judge
    from mteval.scorers.vlm import VlmScorer
    from mteval.store import save_table

    if labels is not None and truth is not None:
        raise UsageError("--labels and --truth: choose one of them")
    configs = [reopen(path).model_copy(update={"scorers": (parse_named(scorer),)}) for path in runs]
    if judge is not None:
        configs = [with_another_judge(config, parse_named(judge)) for config in configs]
    known = labelling.read(labels) if labels else None
    plans = [prepare(config, editor_is_built=True, replaces_scores=True) for config in configs]
    asks = plans[0].scorers[0][1]
    if not isinstance(asks, VlmScorer):
        raise UsageError(f"--scorer {scorer} does not ask a judge one question a turn: choose vlm-if or vlm-cc")
    verdicts = asks.info.success_threshold is not None
    truths = [known if known is not None else _truth(plan, asks.info.id, truth) for plan in plans if verdicts]
    folders = []
    for plan in plans:
        with Bar(f"{asks.info.id} on {plan.folder.name}") as bar:
            folders.append(rescore(plan, bar).folder)
    views = _views(plans[0], probes)
    found: dict[str, pd.DataFrame] = {}
    if verdicts:
        cut = [_first(labels_of, plan, labelled) for labels_of, plan in zip(truths, plans, strict=True)]
        table = calibrating.labelled(folders, asks.info.id, cut)
        if not table["label"].notna().any():
            raise UsageError(f"no label belongs to a turn that {asks.info.id} judged: check session ids and protocol")
        found["agreement"] = calibration.against_labels(table)
        found["confusion"] = calibration.confusion(table)
        found["rates"] = calibrating.by_turn(table)
    if retest > 1:
        found["retest"] = calibrating.retest(asks, views, retest)
    if probes:
        found["probes"] = _as_table(calibrating.probes(asks, views))
    output.mkdir(parents=True, exist_ok=True)
    for name, one in found.items():
        save_table(one, output / f"{name}.csv")
    show(found, f"{asks.info.id} by {asks.asker.info.id} ({asks.asker.info.revision}): per cent, bias in points")
    typer.echo(f"tables       {output}")
    return GOOD


def _truth(plan: Plan, judged: str, asked: str | None) -> Labels:
    """The verdicts of a scorer of the run that asks no judge."""
    from mteval import labels as labelling
    from mteval.store import RunFolder

    run = RunFolder(plan.folder)
    exact = [name for name, info in run.config["scorers"].items() if _is_exact(info) and name != judged]
    name = asked or (exact[0] if exact else None)
    if name is None or name not in run.config["scorers"]:
        had = ", ".join(run.config["scorers"]) or "none"
        raise UsageError(f"{run.path} has no scorer that tells the truth (it has {had}): give --labels FILE or --truth")
    return labelling.of_scorer(run.score_records(), name)


def _is_exact(info: dict[str, Any]) -> bool:
    return info["measures"] == "instruction_following" and "judge" not in info["args"]


def _first(labels: Labels, plan: Plan, count: int | None) -> Labels:
    wanted = {session.id for session in plan.sessions[:count]}
    return {key: label for key, label in labels.items() if key[0] in wanted}


def _views(plan: Plan, count: int) -> list[TurnView]:
    """Turns of the run, a few of every session's, as the scorer is shown them."""
    from mteval.scoring import Views
    from mteval.store import RunWriter

    sessions = {session.id: session for session in plan.sessions}
    with RunWriter(plan.folder) as writer:
        records = [
            record
            for record in writer.turns.values()
            if record.state == "ok" and record.protocol == "free-running" and record.session in sessions
        ]
        chosen = records[:: max(1, len(records) // max(count, 1))][:count]
        return [Views(plan.benchmark, sessions[record.session], writer).view(record, record.turn) for record in chosen]


def _as_table(probes: Sequence[Any]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (probe.name, probe.expected, probe.right.value, probe.right.low, probe.right.high, probe.right.n, probe.failed)
        for probe in probes
    ]
    return pd.DataFrame(rows, columns=["probe", "expected", "right", "low", "high", "n", "failed"])
