"""A run before it starts: everything that can be wrong with it is found here, before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mteval import registry
from mteval.config import Named, RunConfig, identity_hash
from mteval.errors import UsageError
from mteval.scorers.base import VERDICTS, Measure
from mteval.sessions import PROTOCOLS
from mteval.store import RUN, RunFolder, check_writable
from mteval.verdict import Condition

if TYPE_CHECKING:
    from mteval.benchmarks.base import Benchmark
    from mteval.scorers.base import Scorer, ScorerInfo
    from mteval.sessions import Protocol, Session

RUNS = Path("runs")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked run.

    Attributes:
        config: as asked. protocols, turns, limit: what its None became.
        sessions: the sessions to run, in the benchmark's order.
        scorers: built, with the names and arguments that built them.
        identity: what makes two commands the same run. folder: where it lies.
        notes: what a person should know, for example a protocol that is left out.
    """

    config: RunConfig
    benchmark: Benchmark
    sessions: Sequence[Session]
    scorers: tuple[tuple[Named, Scorer], ...]
    protocols: tuple[Protocol, ...]
    turns: int
    limit: int
    identity: dict[str, Any]
    folder: Path
    notes: tuple[str, ...]

    @property
    def benchmark_label(self) -> str:
        """The benchmark as a table shows it, for example ``shapes/standard-test``."""
        info = self.benchmark.info
        return f"{info.id}/{info.variant}" if info.variant else info.id


def prepare(
    config: RunConfig,
    benchmark: Benchmark | None = None,
    *,
    root: Path = RUNS,
    editor_is_built: bool = False,
    replaces_scores: bool = False,
) -> Plan:
    """Check a run and work out what it will do, without loading a model and without writing anything.

    Args:
        benchmark: used instead of building the one that ``config`` names (the Python interface).
        root: the folder of run folders, for a run that does not name its own.
        editor_is_built: the caller has the editor already or needs none, so its name need not be registered.
        replaces_scores: old scores of another scoring version will make way, so they are no reason to refuse.

    Raises:
        UsageError: anything a person can mend.
    """
    for text in config.asserts:
        Condition.parse(text)
    if benchmark is None:
        benchmark = registry.create("benchmark", config.benchmark.name, config.benchmark.args)
    info = benchmark.info
    turns = config.turns or info.default_turns
    if info.max_turns is not None and turns > info.max_turns:
        raise UsageError(f"{info.id} has sessions of at most {info.max_turns} turns, not {turns}")
    limit = config.limit or info.default_limit or info.size
    if limit > info.size:
        raise UsageError(f"{info.id} has {info.size} sessions, not {limit}: choose a --limit up to {info.size}")
    protocols, notes = _protocols(config, benchmark)
    asked = [Named(name=name) for name in info.scorers] if config.scorers is None else config.scorers
    named = [with_judge(item, config.judge) for item in asked]
    scorers = tuple((item, registry.create("scorer", item.name, item.args)) for item in named)
    _check_told_apart(scorers)
    _check_measured(scorers)
    identity = {
        "model": config.model.model_dump(exclude={"title"}),
        "dtype": config.dtype,
        "benchmark": config.benchmark.model_dump(),
        "benchmark_variant": info.variant,
        "benchmark_version": info.version,
        "protocols": list(protocols),
        "turns": turns,
        "repeats": config.repeats,
        "seed": config.seed,
        "seed_policy": config.seed_policy,
        "on_missing": config.on_missing,
        "context": config.context,
        "batch_size": config.batch_size,
    }
    folder = config.output or root / _folder_name(config, info.id, identity)
    check_writable(folder)
    if (folder / RUN).is_file():
        _check_identity(RunFolder(folder), identity)
        if not replaces_scores:
            _check_scores(RunFolder(folder), scorers)
    if not editor_is_built:  # last, because it may import torch
        registry.check("editor", config.model.name, config.model.args)
    if config.repeats > 1 and config.seed_policy == "fixed":
        notes = (*notes, "with --seed-policy fixed an editor that has seeds makes the same image in every repeat")
    sessions = benchmark.sessions(turns, limit)
    return Plan(config, benchmark, sessions, scorers, protocols, turns, limit, identity, folder, notes)


def reopen(path: Path) -> RunConfig:
    """The configuration that a run folder was made with, and every scorer that has judged it since.

    Raises:
        UsageError: ``path`` is no run folder.
    """
    config = RunFolder(path).config
    # Runs of before 0.2 name a scorer by its id alone.
    scorers = [{"name": info.get("name", id), "args": info["args"]} for id, info in config["scorers"].items()]
    return RunConfig.model_validate({**config["settings"], "scorers": scorers, "output": path})


def _protocols(config: RunConfig, benchmark: Benchmark) -> tuple[tuple[Protocol, ...], tuple[str, ...]]:
    asked = tuple(protocol for protocol in PROTOCOLS if config.protocol is None or protocol in config.protocol)
    if benchmark.info.has_references or "teacher-forced" not in asked:
        return asked, ()
    reason = f"{benchmark.info.id} has no reference states, which teacher-forced needs"
    if config.protocol is not None:
        raise UsageError(f"{reason}: leave out --protocol teacher-forced")
    rest = tuple(protocol for protocol in asked if protocol != "teacher-forced")
    return rest, (f"teacher-forced is left out, and with it the exposure bias: {reason}",)


def _folder_name(config: RunConfig, benchmark_id: str, identity: dict[str, Any]) -> str:
    name = f"{config.model.name}-{benchmark_id}-{identity_hash(identity)}"
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


def with_judge(scorer: Named, judge: Named | None) -> Named:
    """The scorer with the judge of the run, where it asks one and names none itself."""
    if (
        judge is None
        or "judge" in scorer.args
        or "judge" not in registry.arguments(registry.resolve("scorer", scorer.name))
    ):
        return scorer
    return scorer.model_copy(update={"args": {**scorer.args, "judge": judge.model_dump()}})


def with_another_judge(config: RunConfig, judge: Named) -> RunConfig:
    """The configuration with this judge in place of the one that its scorers were given."""
    scorers = config.scorers or ()
    forgotten = [
        item.model_copy(update={"args": {key: value for key, value in item.args.items() if key != "judge"}})
        for item in scorers
    ]
    return config.model_copy(update={"judge": judge, "scorers": tuple(forgotten) or config.scorers})


def _check_told_apart(scorers: Sequence[tuple[Named, Scorer]]) -> None:
    """Refuse two scorers of one id, whose scores would overwrite each other."""
    seen: dict[str, Named] = {}
    for named, scorer in scorers:
        id = scorer.info.id  # a served scorer asks its server here, before any model is loaded
        if id in seen:
            raise UsageError(f"{seen[id].typed} and {named.typed} both write scores of '{id}': leave one of them out")
        seen[id] = named


def _check_measured(scorers: Sequence[tuple[Named, Scorer]]) -> None:
    """Refuse a scorer whose scores no metric could use."""
    for named, scorer in scorers:
        reason = unmeasured(scorer.info)
        if reason:
            raise UsageError(f"scorer {named.typed} {reason}")


def unmeasured(info: ScorerInfo) -> str | None:
    """Why no metric can use the scores of a scorer, with the remedy; None where one can."""
    measure, threshold = info.measures, info.success_threshold
    if measure not in get_args(Measure):
        return f"measures '{measure}', of which there is no metric: measure one of {', '.join(get_args(Measure))}"
    if (info.scope == "session") != (measure == "trajectory"):
        return f"measures {measure} with scope {info.scope}: scope session goes with trajectory, and with nothing else"
    if measure in VERDICTS and threshold is None:
        return f"measures {measure} without a success_threshold, so no turn would have a verdict: declare one"
    if threshold is not None and not info.low <= threshold <= info.high:
        return f"has a success_threshold of {threshold:g} outside its range {info.low:g} to {info.high:g}: mend one"
    if measure == "content_consistency" and not 0 <= info.low <= info.high <= 1:
        return f"measures {measure} from {info.low:g} to {info.high:g}, which must lie within 0 to 1: divide it"
    return None


def _check_identity(folder: RunFolder, identity: dict[str, Any]) -> None:
    before = folder.config["identity"]
    differ = [key for key in identity if before.get(key) != identity[key]]
    if differ:
        raise UsageError(f"{folder.path} holds another run (other {', '.join(differ)}): choose another --output")


def _check_scores(folder: RunFolder, scorers: Sequence[tuple[Named, Scorer]]) -> None:
    """Refuse to mix scores of two scoring versions, of other arguments, or of other models behind a scorer."""
    judged = {record.scorer: record.scoring_version for record in folder.score_records()}
    for named, scorer in scorers:
        info = scorer.info
        if info.id not in judged:
            continue
        then = folder.config["scorers"][info.id]
        facts = {
            "version": (judged[info.id], info.scoring_version),
            "arguments": (then["args"], named.args),
            "revision": (then.get("revision", ""), info.revision),
        }
        differ = {what: pair for what, pair in facts.items() if pair[0] != pair[1]}
        if differ:
            before, now = (" and ".join(f"{what} {pair[k]}" for what, pair in differ.items()) for k in (0, 1))
            raise UsageError(
                f"{folder.path} holds scores of {info.id} {before}, this would add {now}: "
                f"replace the old ones with `mteval score {folder.path} --scorers {named.typed}`"
            )
