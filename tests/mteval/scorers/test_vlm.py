"""Scorers that ask a judge: what they show it, what they make of its answers, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mteval.errors import Transient, UsageError
from mteval.judges.base import Answer, JudgeInfo, Question
from mteval.judges.prompts import CONSISTENCY, CORRUPTION, FOLLOWING, LOSS
from mteval.registry import create, names
from mteval.scorers.base import AsksJudge, TurnView
from mteval.sessions import Session, Turn

COLORS = ("red", "green", "blue", "white")
IMAGES = {color: Image.new("RGB", (4, 4), color) for color in COLORS}
SESSION = Session("s", "s", tuple(Turn(f"Make it {color}", "color_alter") for color in COLORS[1:]))
ASKERS = ("vlm-if", "vlm-cc", "vlm-trajectory-if", "vlm-trajectory-cc", "lme-survival", "lme-collapse")


class Judge:
    """Answers by ``reply`` and remembers what it was asked."""

    def __init__(self, reply: Callable[[Question], Answer], probabilities: bool = True) -> None:
        self.info = JudgeInfo("j", "1", probabilities)
        self.reply = reply
        self.questions: list[Question] = []

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        self.questions += questions
        return [self.reply(question) for question in questions]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", "")


def tokens(probabilities: Mapping[str, float]) -> Callable[[Question], Answer]:
    told = {word: math.log(share) for word, share in probabilities.items()}
    return lambda question: Answer("?", log_probabilities=told)


def scores_in_turn(*scores: object) -> Callable[[Question], Answer]:
    left = list(scores)
    return lambda question: Answer(f'Well.\n{{"score": {left.pop(0)}}}')


def view(turn: int = 2, judged: int | None = None, protocol: str = "free-running") -> TurnView:
    texts = [f"Make it {color}" for color in COLORS[1:]]
    history = tuple((text, IMAGES[color]) for text, color in zip(texts, COLORS[1:turn], strict=False))
    previous = "red" if protocol == "single-shot" else COLORS[turn - 1]
    shown = IMAGES["red"], IMAGES[previous], IMAGES[COLORS[turn]]
    return TurnView(SESSION, turn, judged or turn, protocol, *shown, history=history)


def told(question: Question) -> list[str]:
    """What is shown, images by their colour."""
    by_bytes = {image.tobytes(): color for color, image in IMAGES.items()}
    return [part if isinstance(part, str) else by_bytes[part.tobytes()] for part in question.parts]


def one(name: str, judge: Judge, at: TurnView | None = None, **settings: Any) -> Any:
    (score,) = create("scorer", name, {"judge": judge, **settings}).score([at or view()])
    return score


def test_every_scorer_that_asks_a_judge_is_registered_and_tested_here() -> None:
    for name in names("scorer"):
        if name.startswith(("vlm-", "lme-")):
            assert name in ASKERS
            assert isinstance(create("scorer", name, {"judge": Judge(tokens({"1": 1}))}), AsksJudge)


def test_following_shows_the_image_before_and_after_and_the_judged_instruction() -> None:
    judge = Judge(tokens({"9": 1}))
    assert one("vlm-if", judge).value == 1
    assert one("vlm-if", judge, view(3, judged=1, protocol="single-shot")).value == 1
    free, single = (told(question) for question in judge.questions)
    assert [part for part in free if part in COLORS] == ["green", "blue"]
    assert [part for part in single if part in COLORS] == ["red", "white"]
    assert any(part.startswith('Instruction: "Make it blue"\n') and FOLLOWING in part for part in free)
    assert any(part.startswith('Instruction: "Make it green"\n') for part in single)
    assert judge.questions[0].choices == tuple("0123456789") and judge.questions[0].tokens == 1


def test_consistency_shows_the_first_and_the_current_image_and_every_instruction() -> None:
    judge = Judge(tokens({"0": 0.5, "9": 0.5}))
    assert one("vlm-cc", judge, view(3)).value == pytest.approx(0.5)
    shown = told(judge.questions[0])
    assert [part for part in shown if part in COLORS] == ["red", "white"]
    asked = next(part for part in shown if CONSISTENCY in part)
    assert [f'Instruction: "Make it {color}"' in asked for color in COLORS[1:]] == [True] * 3


def test_a_trajectory_shows_every_image_in_turn() -> None:
    judge = Judge(tokens({"9": 1}))
    one("vlm-trajectory-if", judge, view(3))
    assert [part for part in told(judge.questions[0]) if part in COLORS] == list(COLORS)
    assert create("scorer", "vlm-trajectory-if", {"judge": judge}).info.scope == "session"


@pytest.mark.parametrize("scale", ["0-9", "0-5", "0-2", "yes-no"])
def test_the_ends_of_every_scale_are_0_and_1(scale: str) -> None:
    worst, best = ("no", "yes") if scale == "yes-no" else ("0", scale[-1])
    half = Judge(tokens({worst: 0.5, best: 0.5}))
    values = [
        one("vlm-if", judge, scale=scale).value for judge in (Judge(tokens({worst: 1})), half, Judge(tokens({best: 1})))
    ]
    assert values == pytest.approx([0, 0.5, 1])


def test_thresholds() -> None:
    judge = Judge(tokens({"1": 1}))
    thresholds = {name: create("scorer", name, {"judge": judge}).info.success_threshold for name in ASKERS}
    assert thresholds == {
        "vlm-if": 0.7,
        "vlm-cc": None,
        "vlm-trajectory-if": None,
        "vlm-trajectory-cc": None,
        "lme-survival": 0.7,
        "lme-collapse": 0.5,
    }
    assert create("scorer", "vlm-if", {"judge": judge, "scale": "yes-no"}).info.success_threshold == 0.5
    assert create("scorer", "vlm-cc", {"judge": judge, "scale": "yes-no"}).info.success_threshold is None
    assert create("scorer", "vlm-if", {"judge": judge, "threshold": 0.2}).info.success_threshold == 0.2


def test_votes_are_averaged_and_told_apart() -> None:
    judge = Judge(scores_in_turn(10, 5, 6))
    score = one("vlm-if", judge, mode="thinking", votes=3)
    assert score.value == pytest.approx(0.7)
    assert score.evidence["votes"] == [1.0, 0.5, 0.6] and len(score.evidence["replies"]) == 3
    assert [question.vote for question in judge.questions] == [0, 1, 2]
    assert {question.temperature for question in judge.questions} == {0.7}
    assert one("vlm-if", Judge(scores_in_turn(3)), mode="thinking").value == pytest.approx(0.3)


def test_a_vote_that_cannot_be_read_makes_no_number() -> None:
    score = one("vlm-if", Judge(scores_in_turn(10, "none", "none", 6)), mode="thinking", votes=3)
    assert (score.state, score.value) == ("parse_error", None)


def test_states_pass_through() -> None:
    for name in ASKERS:
        score = one(name, Judge(lambda question: Answer(error=Transient("down"))))
        assert (score.state, score.value) == ("transport_error", None)
        assert "down" in score.reason


def test_survival_is_the_lower_of_two_and_collapse_their_sum() -> None:
    def by_question(answers: Mapping[str, str]) -> Judge:
        return Judge(
            lambda question: tokens({next(a for q, a in answers.items() if q in str(question.parts)): 1})(question)
        )

    lower = one("lme-survival", by_question({FOLLOWING: "9", CONSISTENCY: "3"}))
    assert lower.value == pytest.approx(3 / 9) and lower.parts == {"following": 1, "consistency": pytest.approx(3 / 9)}
    collapsed = one("lme-collapse", by_question({LOSS: "2", CORRUPTION: "0"}))
    info = create("scorer", "lme-collapse", {"judge": by_question({})}).info
    assert collapsed.value == pytest.approx(0.5) and info.success_threshold is not None
    assert collapsed.value >= info.success_threshold  # 2 of 4 is collapsed
    assert one("lme-collapse", by_question({LOSS: "1", CORRUPTION: "0"})).value == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "non-thinking"}, "needs probabilities"),
        ({"mode": "thinkin"}, "did you mean"),
        ({"mode": "thinking", "scale": "0-8"}, "unknown scale"),
        ({"mode": "thinking", "votes": 0}, "votes must be 1 or more"),
    ],
)
def test_settings_that_do_not_go_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        create("scorer", "vlm-if", {"judge": Judge(scores_in_turn(), probabilities=False), **settings})


def test_votes_on_probabilities_and_no_judge_are_refused() -> None:
    with pytest.raises(UsageError, match="votes are for mode=thinking"):
        create("scorer", "vlm-if", {"judge": Judge(tokens({"1": 1})), "votes": 3})
    with pytest.raises(UsageError, match="vlm-cc needs a judge: --judge"):
        create("scorer", "vlm-cc")


def test_a_batch_is_in_order() -> None:
    judge = Judge(lambda question: tokens({str(sum(part in COLORS for part in told(question))): 1})(question))
    scorer = create("scorer", "vlm-trajectory-if", {"judge": judge})
    assert np.allclose([score.value for score in scorer.score([view(1), view(3), view(2)])], np.array([2, 4, 3]) / 9)
