"""ShapesEdit: sessions from a seed, disjoint splits, exact states, clean pictures."""

import hashlib
import json
import time

import numpy as np
import pytest

from mteval.benchmarks.shapes import ShapesEdit
from mteval.benchmarks.shapes.edits import EDITS
from mteval.benchmarks.shapes.generate import BUCKETS, SIZES, make_session
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.world import LEVELS, Scene
from mteval.errors import UsageError
from mteval.sessions import Session

LEVEL_NAMES = list(LEVELS)


def scenes(session: Session) -> list[Scene]:
    return [session.start, *(turn.target for turn in session.turns)]


@pytest.fixture(scope="module", params=LEVEL_NAMES)
def sessions(request: pytest.FixtureRequest) -> list[Session]:
    return list(ShapesEdit(level=request.param).sessions(10, 200))


def test_splits_share_no_start_scene_by_construction() -> None:
    ranges = [set(buckets) for buckets in BUCKETS.values()]
    assert sum(len(buckets) for buckets in ranges) == len(set.union(*ranges)) == 100
    for split, buckets in BUCKETS.items():
        for session in ShapesEdit(split=split).sessions(1, 300):
            assert session.start.bucket() in buckets


def test_the_test_split_has_4000_sessions_of_10_turns() -> None:
    assert SIZES["test"] >= 4000
    last = make_session(LEVELS["standard"], "test", 0, SIZES["test"] - 1, 10)
    assert len(last.turns) == 10


def test_a_short_session_is_the_beginning_of_the_long_one(sessions: list[Session]) -> None:
    level = sessions[0].start.level
    for short, long in zip(ShapesEdit(level=level).sessions(3, 50), sessions, strict=False):
        assert short.id == long.id
        assert short.turns == long.turns[:3]


def test_another_seed_draws_other_sessions() -> None:
    first, other = (ShapesEdit(seed=seed).sessions(3, 20) for seed in (0, 1))
    assert all(a.start != b.start for a, b in zip(first, other, strict=True))


def test_sessions_stay_what_they_are() -> None:
    """A change here changes every result: raise benchmark.VERSION with it."""
    told = json.dumps([[s.id, s.start, [[t.instruction, t.slots, t.target] for t in s.turns]] for s in _some()])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == FINGERPRINT


def _some() -> list[Session]:
    return [session for level in LEVEL_NAMES for session in ShapesEdit(level=level).sessions(10, 20)]


def test_all_types_come_before_one_comes_again(sessions: list[Session]) -> None:
    """A type waits only where the scene does not allow it, which is rare."""
    firsts = [{turn.task_type for turn in session.turns[:9]} for session in sessions]
    assert set().union(*firsts) == set(EDITS)
    assert np.mean([len(types) == 9 for types in firsts]) > 0.8


def test_later_turns_refer_to_what_earlier_turns_added(sessions: list[Session]) -> None:
    def refers(session: Session) -> bool:
        start = {item.id for item in session.start.items}
        seen: set[int] = set()
        for turn in session.turns:
            if seen & set(turn.slots["touched"]):
                return True
            seen |= {item.id for item in turn.target.items} - start
        return False

    assert np.mean([refers(session) for session in sessions]) > 0.5


def test_states_are_legal(sessions: list[Session]) -> None:
    for session in sessions:
        for scene in scenes(session):
            level = LEVELS[scene.level]
            places = [item.place for item in scene.items]
            assert places == sorted(set(places))
            assert 1 <= len(places) <= level.crowd
            for item in scene.items:
                left, top = level.corner(item)
                assert 0 <= left <= level.size - level.item
                assert 0 <= top <= level.size - level.item


def test_a_turn_changes_what_it_touches_and_nothing_else(sessions: list[Session]) -> None:
    for session in sessions:
        for before, turn in zip(scenes(session), session.turns, strict=False):
            old, new = ({item.id: item for item in scene.items} for scene in (before, turn.target))
            changed = {id for id in old | new if old.get(id) != new.get(id)}
            assert changed == set(turn.slots["touched"])
            assert (before.background != turn.target.background) == (turn.task_type == "background_change")
            assert before != turn.target


def test_an_instruction_names_one_thing(sessions: list[Session]) -> None:
    """Whatever is referred to by colour and shape is the only one of its kind, copies of a count change apart."""
    for session in sessions:
        for before, turn in zip(scenes(session), session.turns, strict=False):
            nouns = [item.noun for item in before.items]
            for item in before.items:
                if item.id in turn.slots["touched"] and turn.task_type != "count_change":
                    assert nouns.count(item.noun) == 1
                    assert item.noun in turn.instruction


def test_pictures_are_exact_and_smooth() -> None:
    benchmark = ShapesEdit()
    for session in benchmark.sessions(2, 5):
        first, again = (np.asarray(benchmark.reference(session, 2)) for _ in range(2))
        assert np.array_equal(first, again)
        assert first.shape == (96, 96, 3)
        assert np.array_equal(np.asarray(benchmark.source(session)), np.asarray(benchmark.reference(session, 0)))
    # Anti-aliased: along the edge of a shape some pixels are covered in part.
    draw = renderer(LEVELS["standard"])
    for item in benchmark.sessions(1, 1)[0].start.items:
        show = draw.patch((item.shape, item.color, item.material, item.text)).show  # type: ignore[arg-type]
        assert ((show > 0.02) & (show < 0.98)).any()


def test_items_look_different() -> None:
    """No two looks of a level draw the same picture."""
    level = LEVELS["hard"]
    draw = renderer(level)
    from mteval.benchmarks.shapes.render import Looks

    for shape in level.shapes:
        made = {
            draw.patch(Looks(shape, color, material, "")).paint.tobytes()
            for color in level.colors
            for material in level.materials
        }
        assert len(made) == len(level.colors) * len(level.materials)
    letters = {draw.patch(Looks("square", "red", "plain", letter)).paint.tobytes() for letter in level.letters}
    assert len(letters) == len(level.letters)


def test_ten_thousand_sessions_take_seconds() -> None:
    start = time.process_time()
    ShapesEdit(split="train").sessions(3, 2000)
    assert 5 * (time.process_time() - start) < 30


@pytest.mark.parametrize("wrong", [{"level": "standart"}, {"split": "tset"}])
def test_a_wrong_argument_names_the_nearest(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"did you mean (standard|test)"):
        ShapesEdit(**wrong)  # type: ignore[arg-type]


FINGERPRINT = "bcf7bdde743cdd0d"
