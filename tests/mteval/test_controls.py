"""The control editors on ShapesEdit: pixels here, the closed forms of the synthetic one through a real `mteval run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mteval import registry
from mteval.benchmarks.shapes import ShapesEdit
from mteval.editors.base import BenchmarkBound, Editor, EditRequest
from mteval.editors.controls import Identity, Oracle, Synthetic
from mteval.errors import UsageError
from mteval.rollout import joined_instruction, seed_for
from mteval.sessions import Session
from tests.mteval.fakes import Rows

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
