"""The scoring loop: who is shown what, what is judged once, what becomes of a scorer that fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mteval.rollout import Options, roll_out
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.scoring import score_run
from mteval.sessions import PROTOCOLS, ScoreRecord
from mteval.store import RunFolder, RunWriter
from tests.mteval.fakes import Faulty, Painter, RowIsPainted, Rows


class Recording(RowIsPainted):
    """Keeps what it is shown, and raises or answers with ``bad`` for the views that ``fails`` picks."""

    def __init__(
        self, fails: Any = lambda view: False, bad: Any = None, measures: str = "instruction_following"
    ) -> None:
        super().__init__()
        self.info = ScorerInfo("row", measures, 0.0, 1.0, success_threshold=0.9)  # type: ignore[arg-type]
        self.fails, self.bad = fails, bad
        self.batches: list[list[TurnView]] = []

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        self.batches.append(list(batch))
        if self.bad is None and any(self.fails(view) for view in batch):
            raise MemoryError("the detector ran out of memory")
        return [self.bad if self.fails(view) else super(Recording, self).score([view])[0] for view in batch]


def made(path: Path, scorer: Any, editor: Any = None, bench: Rows | None = None, limit: int = 3) -> list[ScoreRecord]:
    bench = bench or Rows()
    sessions = bench.sessions(3, limit)
    with RunWriter(path) as writer:
        writer.start({}, [session.id for session in sessions])
        protocols = PROTOCOLS if bench.references else ("free-running", "single-shot")
        roll_out(editor or Painter(), bench, sessions, Options(protocols, 4), writer)
        score_run([scorer], bench, sessions, writer)
    return RunFolder(path).score_records()


def test_every_image_is_judged_and_single_shot_for_every_instruction(tmp_path: Path) -> None:
    records = made(tmp_path, RowIsPainted())
    judged = {(record.protocol, record.turn, record.judged) for record in records if record.session == "s000"}
    expected = {(protocol, t, t) for protocol in PROTOCOLS for t in (1, 2, 3)}
    assert judged == expected | {("single-shot", 2, 1), ("single-shot", 3, 1), ("single-shot", 3, 2)}
    assert all(record.state == "ok" and record.success for record in records)


def test_other_measures_judge_single_shot_once(tmp_path: Path) -> None:
    records = made(tmp_path, Recording(measures="content_consistency"))
    assert all(record.judged == record.turn for record in records)


@pytest.mark.parametrize("measures", ["survival", "collapse"])
def test_no_judge_is_asked_where_no_metric_would_use_it(measures: str, tmp_path: Path) -> None:
    records = made(tmp_path, Recording(measures=measures))
    judged = {(record.protocol, record.turn) for record in records if record.session == "s000"}
    assert judged == {("free-running", turn) for turn in (1, 2, 3)}


def test_a_whole_rollout_is_judged_once_at_its_last_turn_with_all_before_it(tmp_path: Path) -> None:
    scorer = Recording()
    scorer.info = ScorerInfo("row", "trajectory", 0.0, 1.0, scope="session")
    records = made(tmp_path, scorer, bench=Rows(ragged=True))
    assert [(record.session, record.protocol, record.turn) for record in records] == [
        ("s000", "free-running", 3),
        ("s001", "free-running", 2),  # has one turn less
        ("s002", "free-running", 3),
    ]
    for view in (view for batch in scorer.batches for view in batch):
        assert len(view.history) == len(view.session.turns) - 1 == view.turn - 1


def test_a_view_shows_source_input_output_references_and_history(tmp_path: Path) -> None:
    scorer, bench = Recording(), Rows()
    made(tmp_path, scorer, bench=bench)
    folder = RunFolder(tmp_path)
    records = {record.key[:3]: record for record in folder.turn_records()}
    for view in (view for batch in scorer.batches for view in batch):
        record = records[view.session.id, view.protocol, view.turn]
        shown = [view.source, view.previous, view.current, view.reference, view.previous_reference]
        expected = [
            bench.source(view.session),
            folder.image(str(record.input)),
            folder.image(str(record.image)),
            bench.reference(view.session, view.turn),
            bench.reference(view.session, view.turn - 1),
        ]
        assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(shown, expected, strict=True))
        assert len(view.history) == (view.turn - 1 if view.protocol == "free-running" else 0)
        assert not hasattr(view, "editor")


def test_turn_one_is_judged_once_and_its_judgement_recorded_for_every_protocol(tmp_path: Path) -> None:
    scorer = Recording()
    records = made(tmp_path, scorer)
    assert sum(view.turn == 1 for batch in scorer.batches for view in batch) == 3, "once a session"
    for session in ("s000", "s001", "s002"):
        first = [record for record in records if (record.session, record.turn) == (session, 1)]
        assert {record.protocol for record in first} == set(PROTOCOLS)
        assert len({record.value for record in first}) == 1


def test_only_missing_keys_are_computed(tmp_path: Path) -> None:
    whole = made(tmp_path, RowIsPainted())
    scores = tmp_path / "scores.jsonl"
    lines = scores.read_bytes().splitlines(keepends=True)
    scores.write_bytes(b"".join(lines[:-5]))
    scorer = Recording()
    assert made(tmp_path, scorer) == whole
    assert sum(len(batch) for batch in scorer.batches) == 3, "the other two are turn 1, judged already"
    idle = Recording()
    made(tmp_path, idle)
    assert idle.batches == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "MemoryError: the detector ran out of memory"),
        (Score("ok", 1.5), "ValueError: a score of 1.5 is outside [0.0, 1.0]"),
        (Score("ok", float("nan")), "ValueError: a score of nan is outside [0.0, 1.0]"),
        (Score("ok", 0.5, evidence={"box": object()}), "TypeError: Object of type object is not JSON serializable"),
    ],
)
def test_one_bad_image_is_an_infra_error_and_does_not_take_its_neighbours(
    tmp_path: Path, bad: Score | None, reason: str
) -> None:
    scorer = Recording(lambda view: (view.session.id, view.protocol, view.turn) == ("s001", "teacher-forced", 2), bad)
    records = made(tmp_path, scorer)
    errors = [record for record in records if record.state != "ok"]
    assert [record.key[:3] for record in errors] == [("s001", "teacher-forced", 2)]
    assert (errors[0].state, errors[0].value, errors[0].success) == ("infra_error", None, None)
    assert errors[0].reason == reason


def test_a_turn_without_an_image_is_not_judged(tmp_path: Path) -> None:
    records = made(tmp_path, RowIsPainted(), Faulty({("s000", 2): RuntimeError("x")}))
    free = {record.turn for record in records if record.session == "s000" and record.protocol == "free-running"}
    forced = {record.turn for record in records if record.session == "s000" and record.protocol == "teacher-forced"}
    assert (free, forced) == ({1}, {1, 3})


def test_a_benchmark_without_references_shows_none(tmp_path: Path) -> None:
    scorer = Recording()
    made(tmp_path, scorer, bench=Rows(references=False))
    assert all(view.reference is None and view.previous_reference is None for b in scorer.batches for view in b)
