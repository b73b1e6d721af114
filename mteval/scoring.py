"""The scoring loop: every recorded image is shown to every scorer, and only what is not judged yet.

One scorer call holds the turns of one session, so that its images are decoded once; sessions are judged side by side
where a scorer's work is done elsewhere. Turn 1 is the same image under
every
protocol: it is judged once and the judgement recorded for all, or exposure bias at turn 1 would not be exactly 0 with a
judge that is not deterministic.
"""

from __future__ import annotations

import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from mteval.errors import Fatal, UsageError
from mteval.pace import Stopped, in_parallel
from mteval.scorers.base import FREE_RUNNING_ONLY, Score, Scorer, ScorerInfo, TurnView
from mteval.sessions import PROTOCOLS, ScoreKey, ScoreRecord, TurnKey, TurnRecord
from mteval.store import RunWriter

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.benchmarks.base import Benchmark
    from mteval.sessions import Session


def score_run(
    scorers: Sequence[Scorer],
    benchmark: Benchmark,
    sessions: Sequence[Session],
    writer: RunWriter,
    advance: Callable[[int], None] = lambda count: None,
    stop: threading.Event | None = None,
) -> None:
    """Judge what is recorded and not judged yet, session by session.

    Args:
        advance: told how many sessions are done, from one thread at a time.
        stop: set when this is interrupted; the scorers' own waits end by it.

    Raises:
        Fatal, UsageError: a scorer can judge nothing more; what was judged before is recorded.
    """
    by_session: dict[str, list[TurnRecord]] = defaultdict(list)
    for record in writer.turns.values():
        if record.state == "ok":
            by_session[record.session].append(record)
    for records in by_session.values():  # what is judged for all protocols must not depend on the order of the records
        records.sort(key=lambda record: PROTOCOLS.index(record.protocol))
    alone = {id(scorer): threading.Lock() for scorer in scorers if scorer.info.concurrency == 1}
    told = threading.Lock()

    def judge(session: Session, _: threading.Event) -> None:
        views = Views(benchmark, session, writer)
        fresh: list[ScoreRecord] = []
        for scorer in scorers:
            with alone.get(id(scorer), nullcontext()):
                fresh += _score_session(scorer, by_session[session.id], views, writer.scores)
        if fresh:
            writer.append_scores(fresh)
        with told:
            advance(1)

    in_parallel(judge, sessions, max((scorer.info.concurrency for scorer in scorers), default=1), stop)


def judged_turns(info: ScorerInfo, protocol: str, turn: int, last: int) -> Iterable[int]:
    """Which instructions the image of a turn is judged for, none where no metric would use the judgement.

    Single-shot following is judged for each of 1..t. A scorer of whole rollouts is asked at the ``last`` turn only.
    """
    if protocol != "free-running" and info.measures in FREE_RUNNING_ONLY:
        return ()
    if info.scope == "session" and turn != last:
        return ()
    each = protocol == "single-shot" and info.measures == "instruction_following"
    return range(1, turn + 1) if each else (turn,)


def _score_session(
    scorer: Scorer, records: Sequence[TurnRecord], views: Views, known: Mapping[ScoreKey, ScoreRecord]
) -> list[ScoreRecord]:
    missing: list[ScoreRecord] = []
    first: dict[tuple[str | None, int], TurnKey] = {}  # (image, repeat) of turn 1 -> the key that is judged for all
    shared: list[tuple[ScoreKey, ScoreKey]] = []
    asked: list[tuple[TurnRecord, int]] = []
    info = scorer.info
    for record in records:
        source = first.setdefault((record.image, record.repeat), record.key) if record.turn == 1 else record.key
        for judged in judged_turns(info, record.protocol, record.turn, len(views.session.turns)):
            key = ScoreKey(*record.key, info.id, judged)
            if key in known:
                continue
            if source != record.key:
                shared.append((key, ScoreKey(*source, info.id, judged)))
            else:
                asked.append((record, judged))
    scores = ask(scorer, [views.view(record, judged) for record, judged in asked])
    for (record, judged), score in zip(asked, scores, strict=True):
        missing.append(_record(ScoreKey(*record.key, info.id, judged), score, info))
    judged_now = {record.key: record for record in missing}
    for key, original in shared:
        found = judged_now.get(original) or known[original]
        missing.append(replace(found, session=key.session, protocol=key.protocol))
    return missing


def ask(scorer: Scorer, views: Sequence[TurnView]) -> list[Score]:
    """The scores of a batch.

    Where the scorer raises, its views are asked one by one, so that one bad image does not take its neighbours; what
    still raises is an ``infra_error``, never a number.

    Raises:
        Fatal, UsageError: nothing can be judged before a person has mended something.
    """
    if not views:
        return []
    try:
        scores = scorer.score(views)
        if len(scores) != len(views):
            raise ValueError(f"{len(scores)} scores for {len(views)} turns")
        for score in scores:
            _check(score, scorer.info)
    except (Fatal, UsageError, Stopped):
        raise
    except Exception as error:
        if len(views) > 1:
            return [ask(scorer, [view])[0] for view in views]
        return [Score("infra_error", reason=f"{type(error).__name__}: {error}")]
    return scores


def _check(score: Score, info: ScorerInfo) -> None:
    """Raise on what cannot be a judgement of this scorer: out of its range, or evidence that cannot be written down."""
    if score.value is not None and not (math.isfinite(score.value) and info.low <= score.value <= info.high):
        raise ValueError(f"a score of {score.value} is outside [{info.low}, {info.high}]")
    json.dumps([dict(score.parts), dict(score.evidence)], allow_nan=False)


def _record(key: ScoreKey, score: Score, info: ScorerInfo) -> ScoreRecord:
    success = None
    if score.value is not None and info.success_threshold is not None:
        success = bool(score.value >= info.success_threshold)
    return ScoreRecord(
        *key,
        state=score.state,
        value=None if score.value is None else float(score.value),
        success=success,
        parts=score.parts,
        reason=score.reason,
        evidence=score.evidence,
        scoring_version=info.scoring_version,
    )


class Views:
    """What scorers are shown of one session; every image is decoded or rendered once."""

    def __init__(self, benchmark: Benchmark, session: Session, writer: RunWriter) -> None:
        self.session = session
        self.writer = writer
        self.image = cache(writer.image)
        self.source = cache(lambda: benchmark.source(session))
        has_references = benchmark.info.has_references
        self.reference: Callable[[int], Image | None] = cache(
            lambda turn: benchmark.reference(session, turn) if has_references else None
        )

    def view(self, record: TurnRecord, judged: int) -> TurnView:
        """The turn of a record whose state is ok."""
        assert record.input and record.image, "a turn that is ok has an input and an image"
        return TurnView(
            session=self.session,
            turn=record.turn,
            judged=judged,
            protocol=record.protocol,
            source=self.source(),
            previous=self.image(record.input),
            current=self.image(record.image),
            reference=self.reference(record.turn),
            previous_reference=self.reference(record.turn - 1),
            history=self._history(record),
        )

    def _history(self, record: TurnRecord) -> tuple[tuple[str, Image], ...]:
        if record.protocol != "free-running":
            return ()
        keys = (TurnKey(record.session, record.protocol, turn, record.repeat) for turn in range(1, record.turn))
        earlier = [self.writer.turns[key] for key in keys]
        return tuple((past.instruction, self.image(past.image)) for past in earlier if past.image)
