"""One run from plan to report, and the Python interface to it."""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteval import registry, rollout, scoring
from mteval.config import build
from mteval.editors.base import BenchmarkBound, Editor, EditorInfo
from mteval.errors import UsageError
from mteval.pace import Retry
from mteval.plan import Plan, prepare
from mteval.scorers.base import AsksJudge
from mteval.store import LEADERBOARD, REPORT, RUN, Judging, RunFolder, RunWriter, save_table

if TYPE_CHECKING:
    import pandas as pd

    from mteval.benchmarks.base import Benchmark
    from mteval.judges.asking import Usage

Progress = Callable[[str, int, int], None]
"""Told (``edits`` or ``scores``, how many are done, of how many)."""

_JUDGED_AGAIN = ("transport_error", "infra_error", "truncated", "parse_error")
_PACKAGES = ("mteval", "torch", "diffusers", "transformers", "numpy", "pandas", "pillow")


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        folder: its records, images and configuration.
    """

    folder: RunFolder

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def metrics(self) -> pd.DataFrame:
        """The metrics table, one number a row."""
        return self.folder.metrics()


def evaluate(
    editor: str | Editor = "tiny-kontext",
    benchmark: str | Benchmark = "shapes",
    *,
    editor_args: dict[str, Any] | None = None,
    benchmark_args: dict[str, Any] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Evaluate one editor on one benchmark; the same call again resumes.

    Args:
        editor: a registered name, ``module:Class``, or any object with the :class:`~mteval.editors.base.Editor`
            methods.
        benchmark: the same for benchmarks.
        editor_args, benchmark_args: for names only.
        progress: called with (stage, done, total).
        settings: the keys of a configuration file, see :class:`mteval.config.RunConfig`.

    Raises:
        UsageError: anything that a person can mend, before a model is loaded.
        Fatal: the editor can answer nothing more; the same call resumes.

    Example::

        run = mteval.evaluate("tiny-kontext", "shapes", turns=3, limit=50)
        run.metrics.query("metric == 'turn_success' and task_type == 'all'")
    """
    models = {"name": editor if isinstance(editor, str) else editor.info.id, "args": editor_args or {}}
    of = {"name": benchmark if isinstance(benchmark, str) else benchmark.info.id, "args": benchmark_args or {}}
    (config,) = build({"model": models, "benchmark": of, **settings})
    built = None if isinstance(editor, str) else editor
    plan = prepare(config, None if isinstance(benchmark, str) else benchmark, editor_is_built=built is not None)
    if isinstance(built, BenchmarkBound):
        built.bind(plan.benchmark, plan.sessions)
    return execute(plan, built, progress)


def build_editor(plan: Plan) -> Editor:
    """Load the editor of a plan, and show it the benchmark if it is a control that looks at it."""
    config = plan.config
    also = {"device": config.device, "dtype": config.dtype}
    given = {key: value for key, value in also.items() if value is not None}
    editor: Editor = registry.create("editor", config.model.name, config.model.args, **given)
    if isinstance(editor, BenchmarkBound):
        editor.bind(plan.benchmark, plan.sessions)
    return editor


def options_of(plan: Plan, editor: Editor) -> rollout.Options:
    """What the protocols need to know of a plan.

    Raises:
        UsageError: a batch of several sessions, which a resumed run may ask for twice, where that would cost money or
            give other images; a limit of cost where nobody tells what an edit costs; more images a turn than the editor
            takes, or any besides the one to edit where it keeps the dialogue itself.
    """
    config, info = plan.config, editor.info
    if (config.batch_size or 1) > 1 and (info.may_cost or not info.seedable):
        reason = "its images may cost money" if info.may_cost else "it has no seeds"
        raise UsageError(f"--batch-size {config.batch_size}: {info.id} is asked one by one, because {reason}")
    if config.max_cost is not None and info.service and not (info.cost_per_image or info.tells_cost):
        raise UsageError(
            f"--max-cost {config.max_cost:g}: nobody tells what an edit by {info.id} costs, so give cost_per_image= or "
            "price= in --model-args; your own server says cost_per_image in GET /info"
        )
    if info.stateful and config.context != "last":
        raise UsageError(f"--context {config.context}: {info.id} keeps the dialogue itself, so leave --context out")
    shown = {"last": 1, "first+last": 2, "all": plan.turns}[config.context]
    if min(shown, plan.turns) > info.max_images:
        raise UsageError(
            f"--context {config.context} shows up to {shown} images a turn, and {info.id} takes {info.max_images}"
        )
    return rollout.Options(
        protocols=plan.protocols,
        batch_size=config.batch_size or info.batch_size,
        repeats=config.repeats,
        seed=config.seed,
        seed_policy=config.seed_policy,
        on_missing=config.on_missing,
        context=config.context,
        concurrency=config.concurrency or info.concurrency,
        max_cost=config.max_cost,
        retry=Retry(attempts=1 + config.retries),
    )


def execute(plan: Plan, editor: Editor | None = None, progress: Progress | None = None) -> Run:
    """Do what a plan says: roll out, score, compute the metrics, write the report.

    run.json gets the keys ``model`` and ``benchmark`` (labels), ``identity``, ``settings`` (the configuration as
    asked), ``protocols``, ``turns``, ``limit``, ``batch_size`` (as resolved), ``editor`` and ``benchmark_info``
    (their infos, that of the editor with the settings that it samples with), ``scorers`` (id to name, arguments and
    info), ``notes``, ``versions``, ``hardware`` and ``clock``.

    Raises:
        UsageError: the folder is in use, or holds what another revision of the editor made.
        Fatal: the editor can answer nothing more; everything before that is recorded.
    """
    editor = editor or build_editor(plan)
    with RunWriter(plan.folder) as writer:
        options = options_of(plan, editor)
        before = writer.config if writer.started else {}
        _check_continues(before, editor, options)
        writer.start(_describe(plan, editor, options, before), [session.id for session in plan.sessions])
        edits = _counter(progress, "edits", rollout.total_edits(plan.sessions, options))
        rollout.roll_out(editor, plan.benchmark, plan.sessions, options, writer, edits)
        _score(plan, writer, progress)
        return summarise(writer)


def rescore(plan: Plan, progress: Progress | None = None) -> Run:
    """Judge the stored images of a run with the scorers of ``plan``, whose old scores are replaced."""
    with RunWriter(plan.folder) as writer:
        replaced = {scorer.info.id for _, scorer in plan.scorers}
        writer.drop_scores(lambda record: record.scorer in replaced)
        config = writer.config
        scorers = {**config["scorers"], **_scorer_infos(plan)}
        writer.start({**config, "scorers": scorers}, [session.id for session in plan.sessions])
        _score(plan, writer, progress)
        return summarise(writer)


def retry(plan: Plan, progress: Progress | None = None) -> Run:
    """Forget what went wrong in a run, and do it again.

    That is every blocked or failed turn with all later turns of its session, protocol and repeat (those that were not
    run too) and their scores; and judgements that ended in a transport, infrastructure, truncated or parse state.
    """
    editor = build_editor(plan)
    with RunWriter(plan.folder) as writer:
        _check_continues(writer.config, editor, options_of(plan, editor))
        first: dict[tuple[str, str, int], int] = {}
        for key, record in writer.turns.items():  # in key order: the first error of a rollout comes first
            if record.state in ("blocked", "failed"):
                first.setdefault((key.session, key.protocol, key.repeat), key.turn)
        never = plan.turns + 1
        writer.drop_turns(
            {key for key in writer.turns if key.turn >= first.get((key.session, key.protocol, key.repeat), never)}
        )
        writer.drop_scores(lambda record: record.state in _JUDGED_AGAIN)
    return execute(plan, editor, progress)


def summarise(writer: RunWriter, sessions: int | None = None) -> Run:
    """Put the records in canonical order and write all that is derived from them: metrics, tables, report.

    Args:
        sessions: how many the report shows, see :func:`mteval.report.html.write`.
    """
    from mteval import metrics
    from mteval.report import csv, html

    writer.canonicalise()
    config = writer.config
    writer.write_metrics(metrics.of_records(writer.turn_records(), writer.score_records(), config["scorers"]))
    writer.write_costs()
    writer.write_with(LEADERBOARD, lambda path: save_table(csv.leaderboard([writer]), path))
    writer.write_with(REPORT, lambda path: html.write([writer], path, sessions))
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    writer.write_json(RUN, {**config, "clock": {**config["clock"], "finished": finished}})
    return Run(RunFolder(writer.path))


def _score(plan: Plan, writer: RunWriter, progress: Progress | None) -> None:
    scorers = [scorer for _, scorer in plan.scorers]
    if not scorers:
        return
    judges = {scorer.asker.info.id: scorer.asker for scorer in scorers if isinstance(scorer, AsksJudge)}
    stop = threading.Event()
    for asker in judges.values():
        asker.expect_answers(stop)
    before = {name: replace(asker.usage) for name, asker in judges.items()}
    advance = _counter(progress, "scores", len(plan.sessions))
    try:
        scoring.score_run(scorers, plan.benchmark, plan.sessions, writer, advance, stop)
    finally:
        writer.append_judging([_judging(name, asker.usage, before[name]) for name, asker in judges.items()])


def _judging(judge: str, now: Usage, before: Usage) -> Judging:
    """What one pass of scoring asked of a judge."""
    return Judging(
        judge=judge,
        calls=now.calls - before.calls,
        hits=now.hits - before.hits,
        tokens_in=now.tokens_in - before.tokens_in,
        tokens_out=now.tokens_out - before.tokens_out,
        seconds=now.seconds - before.seconds,
        cost=now.cost - before.cost,
        clock=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _counter(progress: Progress | None, stage: str, total: int) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(stage, done, total)

    advance(0)
    return advance


def _check_continues(before: dict[str, Any], editor: Editor, options: rollout.Options) -> None:
    """What only the built editor can tell: refuse to go on with another revision, batch size or setting."""
    if not before:
        return
    info = editor.info
    now: dict[str, Any] = {"revision": info.revision, "batch_size": options.batch_size}
    then = {"revision": before["editor"]["revision"], "batch_size": before["batch_size"]}
    if "settings" in before["editor"]:  # older runs do not tell
        now |= _told(info).settings
        then |= before["editor"]["settings"]
    for what in {**then, **now}:
        if then.get(what) != now.get(what):
            raise UsageError(
                f"this run was begun with {what} {then.get(what)} of {info.id}, now it is {now.get(what)}: "
                "choose another --output"
            )


def _told(info: EditorInfo) -> EditorInfo:
    """The info with its settings as run.json gives them back."""
    return replace(info, settings=json.loads(json.dumps(dict(info.settings), default=str)))


def _describe(plan: Plan, editor: Editor, options: rollout.Options, before: dict[str, Any]) -> dict[str, Any]:
    """The content of run.json."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "model": plan.config.model.label,
        "benchmark": plan.benchmark_label,
        "identity": plan.identity,
        "settings": plan.config.model_dump(mode="json", by_alias=True, exclude={"output"}),
        "protocols": list(plan.protocols),
        "turns": plan.turns,
        "limit": plan.limit,
        "batch_size": options.batch_size,
        "editor": asdict(_told(editor.info)),
        "benchmark_info": asdict(plan.benchmark.info),
        "scorers": {**before.get("scorers", {}), **_scorer_infos(plan)},
        "notes": list(plan.notes),
        "versions": versions(),
        "hardware": _hardware(plan.config.device),
        "clock": {"started": before["clock"]["started"] if before else now, "finished": None},
    }


def _scorer_infos(plan: Plan) -> dict[str, Any]:
    """Id to registered name, arguments and info."""
    return {
        scorer.info.id: {"name": named.name, "args": named.args, **scorer.info.as_json()}
        for named, scorer in plan.scorers
    }


def versions() -> dict[str, str | None]:
    """What Python and the packages that numbers depend on are here; None = not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _hardware(device: str | None) -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count(), "device": device}
