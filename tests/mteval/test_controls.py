"""The control editors on ShapesEdit: pixels here, the closed forms of the synthetic one through a real `mteval run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mteval import registry
from mteval.benchmarks.shapes import ShapesEdit
from mteval.cli import call
from mteval.editors.base import BenchmarkBound, Editor, EditRequest
from mteval.editors.controls import Identity, Oracle, Synthetic
from mteval.errors import UsageError
from mteval.rollout import joined_instruction, seed_for
from mteval.sessions import Session
from mteval.store import RunFolder
from tests.mteval.fakes import Rows

SUCCESS, DRIFT, DRIFT_PENALTY, CASCADE_PENALTY = 0.8, 2, 0.2, 0.5
KNOWN = (
    *("marginal_success", "conditional_success", "turn_success", "content_consistency"),
    *("exposure_bias", "exposure_bias_drift", "exposure_bias_cascade"),
)
SHAPES = ShapesEdit(level="easy", split="validation")


def request(session: Session, turn: int, image: Any, history: Sequence[Any] = ()) -> EditRequest:
    seed = seed_for("per-turn", 0, session.id, turn, 1)
    return EditRequest(session.id, turn, image, session.turns[turn - 1].instruction, seed, tuple(history))


def chain(editor: Synthetic, session: Session) -> list[Any]:
    """The images of a free-running rollout, the source first."""
    images: list[Any] = [SHAPES.source(session)]
    history: list[Any] = []
    for turn in range(1, len(session.turns) + 1):
        (result,) = editor.edit([request(session, turn, images[-1], history)])
        images.append(result.image)
        history.append((session.turns[turn - 1].instruction, result.image))
    return images


def array(image: Any) -> Any:
    return np.asarray(image, dtype=int)


@pytest.mark.parametrize("name", ["identity", "oracle", "synthetic"])
def test_controls_are_editors_and_only_those_that_look_are_bound(name: str) -> None:
    editor = registry.create("editor", name)
    assert isinstance(editor, Editor)
    assert isinstance(editor, BenchmarkBound) == (name != "identity")
    assert editor.output_size((30, 20)) == (30, 20)
    assert editor.accepts("x" * 100_000)
    assert editor.info.seedable


def test_identity_returns_its_input_and_the_oracle_the_reference() -> None:
    sessions = SHAPES.sessions(3, 4)
    oracle = Oracle()
    oracle.bind(SHAPES, sessions)
    for session in sessions:
        source = SHAPES.source(session)
        assert Identity().edit([request(session, 2, source)])[0].image is source
        (result,) = oracle.edit([request(session, 2, source)])
        assert np.array_equal(array(result.image), array(SHAPES.reference(session, 2)))


def test_a_synthetic_success_is_the_reference_and_a_failure_is_the_reference_before_it() -> None:
    sessions = SHAPES.sessions(3, 30)
    for success in (1.0, 0.0):
        editor = Synthetic(success=success)
        editor.bind(SHAPES, sessions)
        for session in sessions:
            for turn in (1, 2, 3):
                clean = SHAPES.reference(session, turn - 1)
                (result,) = editor.edit([request(session, turn, clean)])
                expected = SHAPES.reference(session, turn if success else turn - 1)
                assert np.array_equal(array(result.image), array(expected))


def test_drift_moves_every_pixel_that_no_turn_changed_by_the_same_amount() -> None:
    sessions = SHAPES.sessions(5, 10)
    editor = Synthetic(success=0.5, drift=3)
    editor.bind(SHAPES, sessions)
    for session in sessions:
        source = array(SHAPES.source(session))
        untouched = np.ones(source.shape[:2], dtype=bool)
        for turn, image in enumerate(chain(editor, session)[1:], start=1):
            untouched &= (array(SHAPES.reference(session, turn)) == array(SHAPES.reference(session, turn - 1))).all(2)
            assert (np.abs(array(image) - source)[untouched] == 3 * turn).all()


def test_single_shot_starts_from_the_source() -> None:
    (session,) = SHAPES.sessions(3, 1)
    editor = Synthetic(success=1.0)
    editor.bind(SHAPES, [session])
    asked = EditRequest(session.id, 3, SHAPES.source(session), joined_instruction(session, 3), seed=5)
    assert np.array_equal(array(editor.edit([asked])[0].image), array(SHAPES.reference(session, 3)))


def test_the_draw_depends_on_session_turn_and_seed_and_not_on_the_input() -> None:
    sessions = SHAPES.sessions(2, 200)
    editor = Synthetic(success=0.5)
    editor.bind(SHAPES, sessions)
    done = []
    for session in sessions:
        clean = SHAPES.reference(session, 1)
        images = [editor.edit([request(session, 2, image)])[0].image for image in (clean, SHAPES.source(session))]
        changed = (array(SHAPES.reference(session, 2)) != array(clean)).any(2)
        verdicts = [
            np.array_equal(array(image)[changed], array(SHAPES.reference(session, 2))[changed]) for image in images
        ]
        assert verdicts[0] == verdicts[1], "without penalties a wrong input changes nothing"
        done.append(verdicts[0])
    assert 0.4 < np.mean(done) < 0.6


@pytest.mark.parametrize(
    "wrong", [{"success": 1.2}, {"drift": 0.5}, {"drift": 40}, {"drift_penalty": 0.95}, {"cascade_penalty": -0.1}]
)
def test_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        registry.create("editor", "synthetic", wrong)


def test_a_control_that_needs_references_says_so() -> None:
    with pytest.raises(UsageError, match="rows has none"):
        Oracle().bind(Rows(references=False), [])


@pytest.fixture(scope="module")
def synthetic_metrics(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The metrics of a real `mteval run --model synthetic`."""
    folder = tmp_path_factory.mktemp("synthetic") / "run"
    args = f"success={SUCCESS},drift={DRIFT},drift_penalty={DRIFT_PENALTY},cascade_penalty={CASCADE_PENALTY}"
    typed = ["run", "--model", "synthetic", "--model-args", args, "--benchmark-args", "level=easy", "--limit", "150"]
    typed += ["--protocol", "free-running", "--protocol", "teacher-forced"]
    assert call([*typed, "--scorers", "shapes-if", "--scorers", "shapes-cc", "--output", str(folder)]) == 0
    return RunFolder(folder).metrics()


def truth(metric: str, protocol: str, turn: int) -> float:
    """The closed forms of the docstring of Synthetic."""
    so_far = 1.0 if turn == 1 else SUCCESS * (SUCCESS - DRIFT_PENALTY) ** (turn - 2)  # P_t
    chained = SUCCESS if turn == 1 else SUCCESS - DRIFT_PENALTY
    drift, cascade = (0.0, 0.0) if turn == 1 else (so_far * DRIFT_PENALTY, (1 - so_far) * CASCADE_PENALTY)
    return {
        "marginal_success": SUCCESS - (drift + cascade if protocol == "free-running" else 0),
        "conditional_success": chained,
        "turn_success": so_far * chained,
        "exposure_bias": drift + cascade,
        "exposure_bias_drift": drift,
        "exposure_bias_cascade": cascade,
        "content_consistency": 1 - (turn if protocol == "free-running" else 1) * DRIFT / 255,
    }[metric]


def test_the_metrics_recover_the_set_values_of_the_synthetic_editor(synthetic_metrics: Any) -> None:
    rows = synthetic_metrics[(synthetic_metrics.task_type == "all") & synthetic_metrics.turn.notna()]
    found = 0
    for row in rows.itertuples():
        if row.metric not in KNOWN:
            continue
        found += 1
        expected = truth(row.metric, row.protocol, row.turn)
        # Twice the half-width: about thirty 95 % intervals are looked at, and one or two of them should miss.
        assert abs(row.value - expected) <= (row.high - row.low) + 1e-6, (row, expected)
    assert found == 3 * (2 + 1 + 1 + 3 + 2)


def test_most_of_its_intervals_hold_the_set_value(synthetic_metrics: Any) -> None:
    rows = synthetic_metrics[(synthetic_metrics.task_type == "all") & synthetic_metrics.metric.isin(KNOWN)]
    rows = rows[rows.turn.notna()]
    inside = [
        row.low - 1e-6 <= truth(row.metric, row.protocol, row.turn) <= row.high + 1e-6 for row in rows.itertuples()
    ]
    assert np.mean(inside) >= 0.85


def test_controls_give_what_the_table_of_controls_says(tmp_path: Path) -> None:
    for name in ("oracle", "identity"):
        typed = ["run", "--model", name, "--benchmark-args", "level=easy", "--limit", "20", "--turns", "4"]
        assert call([*typed, "--output", str(tmp_path / name)]) == 0
    oracle, identity = (RunFolder(tmp_path / name).metrics() for name in ("oracle", "identity"))
    for table, metric, value in (
        (oracle, "marginal_success", 1.0),
        (oracle, "turn_success", 1.0),
        (oracle, "content_consistency", 1.0),
        (oracle, "exposure_bias", 0.0),
        (identity, "content_consistency", 1.0),
    ):
        rows = table[(table.metric == metric) & (table.task_type == "all")]
        assert len(rows)
        assert np.allclose(rows.value, value, atol=1e-6), (metric, rows)
    # Free-running it can pass without an edit: what an earlier turn did not add need not be removed.
    floor = identity[(identity.metric == "marginal_success") & (identity.protocol == "teacher-forced")]
    assert (floor[floor.turn.notna() & (floor.task_type == "all")].value < 0.1).all()
