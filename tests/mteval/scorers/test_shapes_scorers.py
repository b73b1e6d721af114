"""The exact scorers, held against the oracle, the identity and controlled corruptions."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mteval.benchmarks.shapes import ShapesEdit
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.world import LEVELS
from mteval.scorers.base import Score, TurnView
from mteval.scorers.reference_psnr import CEILING, ReferencePSNR
from mteval.scorers.shapes_cc import ShapesContentConsistency
from mteval.scorers.shapes_if import ShapesInstructionFollowing
from mteval.sessions import Session

IF, CC, PSNR = ShapesInstructionFollowing(), ShapesContentConsistency(), ReferencePSNR()
TURNS, COUNT = 10, 40
Corruption = Callable[[Image.Image], Image.Image]


class World:
    """Sessions of one level with all their reference images."""

    def __init__(self, level: str) -> None:
        self.benchmark = ShapesEdit(level=level)
        self.sessions = self.benchmark.sessions(TURNS, COUNT)
        self.images = {s.id: [self.benchmark.reference(s, t) for t in range(TURNS + 1)] for s in self.sessions}

    def view(
        self, session: Session, turn: int, current: Image.Image, judged: int | None = None, shot: bool = False
    ) -> TurnView:
        images = self.images[session.id]
        return TurnView(
            session=session,
            turn=turn,
            judged=judged or turn,
            protocol="single-shot" if shot else "free-running",
            source=images[0],
            previous=images[0] if shot else images[turn - 1],
            current=current,
            reference=images[turn],
            previous_reference=images[turn - 1],
        )

    def views(self, corrupt: Corruption = lambda image: image, lag: int = 0) -> list[TurnView]:
        """Every turn with its reference (``lag`` turns back), corrupted."""
        return [
            self.view(session, t, corrupt(self.images[session.id][t - lag]))
            for session in self.sessions
            for t in range(1, TURNS + 1)
        ]


@pytest.fixture(scope="module", params=list(LEVELS))
def any_world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.fixture(scope="module")
def world() -> World:
    return World("standard")


def values(scores: list[Score]) -> list[float]:
    return [score.value for score in scores if score.value is not None]


def part(scores: list[Score], name: str) -> float:
    return float(np.mean([score.parts[name] for score in scores if name in score.parts]))


def test_the_oracle_scores_one_everywhere(any_world: World) -> None:
    views = any_world.views()
    assert set(values(IF.score(views))) == {1.0}
    for score in CC.score(views):
        assert set(score.parts.values()) <= {1.0}
    assert set(values(PSNR.score(views))) == {CEILING}


def test_the_oracle_scores_one_in_a_single_shot(any_world: World) -> None:
    views = [
        any_world.view(session, turn, any_world.images[session.id][turn], judged, shot=True)
        for session in any_world.sessions
        for turn in (2, 3, 5)
        for judged in range(1, turn + 1)
    ]
    scores = IF.score(views)
    assert {score.state for score in scores} == {"ok", "not_applicable"}
    assert set(values(scores)) == {1.0}
    # The last instruction always has something left to judge.
    assert all(s.state == "ok" for s, view in zip(scores, views, strict=True) if view.judged == view.turn)


def test_the_source_fails_a_single_shot(world: World) -> None:
    views = [
        world.view(session, 3, world.images[session.id][0], judged, shot=True)
        for session in world.sessions
        for judged in (1, 2, 3)
    ]
    assert np.mean(values(IF.score(views))) < 0.1


def test_the_identity_editor_fails_every_type(any_world: World) -> None:
    views = any_world.views(lag=1)
    by_type: dict[str, list[float]] = defaultdict(list)
    for view, score in zip(views, IF.score(views), strict=True):
        by_type[view.instruction.task_type].append(float(score.value or 0))
    assert len(by_type) == 9
    assert {name: np.mean(floor) for name, floor in by_type.items() if np.mean(floor) > 0.05} == {}
    scores = CC.score(views)
    assert part(scores, "step_object") == part(scores, "step_background") == 1.0


def blur(radius: float) -> Corruption:
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius))


def noise(image: Image.Image) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray((np.asarray(image) + rng.normal(0, 20, (96, 96, 3))).clip(0, 255).astype(np.uint8))


def tint(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(int) + np.array([15, -10, 10])).clip(0, 255).astype(np.uint8))


def shifted(pixels: int) -> Corruption:
    return lambda image: Image.fromarray(np.roll(np.asarray(image), pixels, (0, 1)))


@pytest.mark.parametrize(
    "corrupt", [blur(1.0), blur(1.5), noise, tint, shifted(1)], ids=["blur1", "blur1.5", "noise", "tint", "1px"]
)
def test_small_drift_fails_no_instruction_but_costs_consistency(world: World, corrupt: Corruption) -> None:
    views = world.views(corrupt)
    assert np.mean(values(IF.score(views))) > 0.97
    scores = CC.score(views)
    assert part(scores, "object") < 0.97
    assert part(scores, "background") < 0.995
    assert max(values(PSNR.score(views))) < 40


def test_a_step_of_nothing_costs_nothing_although_the_drift_is_there(world: World) -> None:
    """I_{t-1} against I_t separates this turn's damage from what it inherited."""
    views = []
    for session in world.sessions:
        for t in range(1, TURNS + 1):
            drifted = [tint(image) for image in world.images[session.id][t - 1 : t + 1]]
            view = world.view(session, t, drifted[1])
            views.append(replace(view, previous=drifted[0]))
    scores = CC.score(views)
    assert part(scores, "step_background") > 0.999 > 0.97 > part(scores, "background")


@pytest.mark.parametrize(
    "corrupt", [lambda i: Image.new("RGB", i.size, (128, 128, 128)), shifted(32)], ids=["grey", "wrong cell"]
)
def test_a_ruined_picture_follows_no_instruction(world: World, corrupt: Corruption) -> None:
    by_type: dict[str, list[float]] = defaultdict(list)
    views = [v for v in world.views(corrupt) if v.instruction.task_type != "background_change"]
    for view, score in zip(views, IF.score(views), strict=True):
        by_type[view.instruction.task_type].append(float(score.value or 0))
    removal = by_type.pop("subject_remove")  # a shifted picture may well have nothing there
    by_type.pop("count_change")  # and a count is the same in other places
    assert np.mean(removal) < 0.8
    assert {name: np.mean(v) for name, v in by_type.items() if np.mean(v) > 0.15} == {}


@pytest.mark.parametrize("attribute", ["color", "shape", "material", "text", "missing"])
def test_one_wrong_attribute_fails_the_turns_that_ask_for_it(world: World, attribute: str) -> None:
    """The item that a turn is about gets one wrong attribute, or is missing; consistency does not move."""
    asks = {
        "subject_add": {"color", "shape", "material", "missing"},
        "subject_replace": {"color", "shape", "missing"},
        "color_alter": {"color", "shape", "missing"},
        "material_alter": {"color", "shape", "material", "missing"},
        "text_change": {"color", "shape", "text", "missing"},
        "position_change": {"color", "shape", "missing"},
    }
    level, draw = LEVELS["standard"], renderer(LEVELS["standard"])
    choices = {"color": level.colors, "shape": level.shapes, "material": level.materials, "text": ("", *level.letters)}
    failed: dict[str, list[bool]] = defaultdict(list)
    consistent = []
    for session in world.sessions:
        for t, turn in enumerate(session.turns, 1):
            if "shows" not in turn.slots:
                continue
            target = turn.target.item(turn.slots["shows"][0])
            if attribute == "material" and target.text:
                continue  # a label hides much of the fill
            others = [item for item in turn.target.items if item is not target]
            if attribute == "missing":
                wrong = turn.target._replace(items=tuple(others))
            else:
                other = next(c for c in choices[attribute] if c != getattr(target, attribute))
                changed = target._replace(**{attribute: other})
                items = tuple(changed if item is target else item for item in turn.target.items)
                wrong = turn.target._replace(items=items)
            view = world.view(session, t, draw.image(wrong))
            failed[turn.task_type].append(IF.score([view])[0].value == 0)
            if attribute != "missing":
                consistent += [CC.score([view])[0].parts.get("step_background", 1.0)]
    for task_type, outcomes in failed.items():
        if attribute in asks[task_type]:
            assert np.mean(outcomes) > 0.95, task_type
        else:
            assert np.mean(outcomes) < 0.05, task_type
    # Another shape covers a little more or less of the background.
    assert min(consistent, default=1.0) > (0.95 if attribute == "shape" else 0.99)


def test_an_earlier_wrong_background_fails_no_later_turn(world: World) -> None:
    draw = renderer(LEVELS["standard"])
    views = []
    for session in world.sessions:
        for t, turn in enumerate(session.turns, 1):
            if turn.task_type != "background_change":
                other = next(b for b in LEVELS["standard"].backgrounds if b != turn.target.background)
                views.append(world.view(session, t, draw.image(turn.target._replace(background=other))))
    assert np.mean(values(IF.score(views))) > 0.99


def test_another_size_is_a_state_not_a_number(world: World) -> None:
    view = world.view(world.sessions[0], 1, Image.new("RGB", (64, 64)))
    assert {score.state for scorer in (IF, CC, PSNR) for score in scorer.score([view])} == {"infra_error"}


def test_exact_scoring_is_quick(world: World) -> None:
    """1,000 turns a second on one core when it is free; the bound leaves room for a busy one."""
    views = world.views(lag=0)
    IF.score(views)  # patches are drawn once
    start = time.process_time()
    IF.score(views)
    assert len(views) / (time.process_time() - start) > 300
