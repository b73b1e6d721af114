"""Which sessions are played: everyone once, or those that are in doubt."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mteval.benchmarks.shapes import ShapesEdit
from mteval.sessions import Session, Turn
from mttrain.choice import Chooser
from mttrain.rollouts import Group

POOL = ShapesEdit(split="train").sessions(3, 40)


def test_even_choice_deals_every_session_once_before_any_again() -> None:
    chooser = Chooser(POOL, "even", seed=1)
    drawn = [session.id for iteration in range(16) for session in chooser.draw(iteration, 5)]
    assert Counter(drawn[:40]) == Counter(session.id for session in POOL) == Counter(drawn[40:])
    assert drawn[:40] != drawn[40:]


@pytest.mark.parametrize("how", ["even", "uncertain"])
def test_a_draw_depends_on_seed_and_iteration_alone(how: str) -> None:
    first, again, other = (Chooser(POOL, how, seed) for seed in (1, 1, 2))  # type: ignore[arg-type]
    first.draw(0, 4)
    assert [s.id for s in first.draw(3, 4)] == [s.id for s in again.draw(3, 4)] != [s.id for s in other.draw(3, 4)]


def test_uncertain_choice_prefers_types_that_sometimes_fail() -> None:
    pool = [Session(str(k), str(k), (Turn("do", "easy" if k % 2 else "hard"),)) for k in range(400)]
    chooser = Chooser(pool, "uncertain", seed=0)
    benchmark = ShapesEdit()
    easy, hard = (Group(0, session, benchmark) for session in (pool[1], pool[0]))
    for _ in range(200):
        chooser.learn([easy, hard], np.array([[[1.0], [np.nan]], [[0.0], [1.0]]]))
    drawn = [session.turns[0].task_type for iteration in range(10) for session in chooser.draw(iteration, 4)]
    assert drawn.count("hard") > 30
    assert chooser.doubt(pool[0], 0) == pytest.approx(0.25) and chooser.doubt(pool[1], 0) < 1e-6
    again = Chooser(pool, "uncertain", seed=0)
    again.restore(chooser.state())
    assert again.draw(7, 4) == chooser.draw(7, 4)
