"""The scorer edival-if: what it shows and asks, in how many rounds, and what becomes of a failure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from mteval.benchmarks.edival import session_of
from mteval.benchmarks.edival_csv import read
from mteval.errors import Blocked, Transient, UsageError
from mteval.judges.base import Answer, Question
from mteval.perception.base import Box, Detection, Text
from mteval.registry import create
from mteval.scorers.base import Score, TurnView
from mteval.scorers.edival.outlasting import outlasting, overtaken
from mteval.scorers.edival.rules import NEEDED
from mteval.scorers.edival_if import EdivalInstructionFollowing
from mteval.scoring import ask
from mteval.sessions import Session, Turn
from tests.mteval.scorers.edival_script import (
    PixelDetector,
    ScriptedJudge,
    agreeing,
    scene,
    session,
    shown,
    spoken,
)

LEFT, TOP, RIGHT = (4, 28, 16, 40), (28, 4, 40, 16), (48, 28, 60, 40)
RED, GREEN = ("red", LEFT), ("green", RIGHT)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTEVAL_JUDGE_CACHE", "")


EDITS: Mapping[str, tuple[str, Image.Image, Image.Image]] = {
    "subject_add": ("Add [blue box] on the [left] of [green box]", scene(GREEN), scene(GREEN, ("blue", LEFT))),
    "subject_remove": ("Remove [red box]", scene(RED, GREEN), scene(GREEN)),
    "subject_replace": ("Replace [red box] with [blue box]", scene(RED), scene(("blue", LEFT))),
    "material_alter": ("Change the material of [red box] to [glass]", scene(RED), scene(("white", LEFT))),
    "color_alter": ("Change the color of [red box] to [blue]", scene(RED), scene(("blue", LEFT))),
    "text_change": ("Add text '[YES]' on the image", scene(), scene(("white", TOP))),
    "position_change": ("Change the position of [red box] to [right] of [green box]", scene(RED, ("green", TOP)),
                        scene(("red", RIGHT), ("green", TOP))),
    "count_change": ("Change the count of [red box] to [2]", scene(RED), scene(RED, ("red", RIGHT))),
    "background_change": ("Change the background to [park]|, remain the red box unchanged", scene(RED),
                          scene(RED, ground="black")),
}  # fmt: skip
"""Type -> (form, image before, image after): every edit as it was asked for."""


def reads_white(question: Question) -> Answer:
    """Agrees to everything, and reads YES where something white is shown."""
    if "Which text" in spoken(question):
        white = any((255, 255, 255) in image.get_flattened_data() for image in shown(question))
        return Answer("YES" if white else "none.")
    return agreeing(question)


def views(after: str = "after") -> list[TurnView]:
    found = []
    for task_type, (form, before, done) in EDITS.items():
        images = before, before, done if after == "after" else before.copy()
        found.append(TurnView(session((task_type, form)), 1, 1, "free-running", *images))
    return found


def scorer(mode: str = "fixed", judge: ScriptedJudge | None = None, **more: object) -> EdivalInstructionFollowing:
    arguments = {"detector": PixelDetector(), "judge": judge or ScriptedJudge(reads_white), "mode": mode, **more}
    return EdivalInstructionFollowing(**arguments)  # type: ignore[arg-type]


def by_type(scores: Sequence[Score]) -> dict[str, float | None]:
    assert all(score.reason for score in scores)
    json.dumps([dict(score.evidence) for score in scores], allow_nan=False)
    return dict(zip(EDITS, (score.value for score in scores), strict=True))


@pytest.mark.parametrize("mode", ["fixed", "published"])
def test_every_edit_as_it_was_asked_for_is_done(mode: str) -> None:
    assert by_type(scorer(mode).score(views())) == dict.fromkeys(EDITS, 1.0)


def test_the_identity_editor_passes_no_rule_though_the_judge_agrees_to_everything() -> None:
    """Published, it passes whatever is the judge's alone."""
    assert by_type(scorer("fixed").score(views("before"))) == dict.fromkeys(EDITS, 0.0)
    published = by_type(scorer("published").score(views("before")))
    assert {name for name, value in published.items() if value} == {
        *("material_alter", "color_alter", "background_change")
    }


def test_the_questions_of_a_batch_are_asked_together() -> None:
    for mode, rounds in (("fixed", 2), ("published", 2)):  # text is read twice, two names are stripped
        judge = ScriptedJudge(reads_white)
        scorer(mode, judge).score(views())
        assert len(judge.calls) == rounds
        assert len(judge.calls[0]) > 4


def test_published_images_are_of_512_pixels_and_fixed_ones_as_they_are() -> None:
    for mode, size in (("published", (512, 512)), ("fixed", (64, 64))):
        detector, judge = PixelDetector(), ScriptedJudge(reads_white)
        scorer(mode, judge, detector=detector).score(views())
        assert {image.size for image, _, _ in detector.asked} == {size}
        whole = [image for question in judge.questions for image in shown(question)]
        assert size in {image.size for image in whole}
        altered = [question for question in judge.questions if "blue in color" in spoken(question)]
        if mode == "fixed":  # the red box alone, in both images
            ((before, after),) = [shown(question) for question in altered]
            assert before.size == after.size == (12, 12)
            assert (before.getpixel((5, 5)), after.getpixel((5, 5))) == ((255, 0, 0), (0, 0, 255))


def test_an_image_is_looked_at_once_for_a_name() -> None:
    detector = PixelDetector()
    before, after = EDITS["count_change"][1:]
    of = session(("count_change", EDITS["count_change"][0]))
    same = [TurnView(of, 1, 1, "free-running", before, before, after) for _ in range(5)]
    scorer(detector=detector).score(same)
    assert len(detector.asked) == 2


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(error=Blocked("no")), "refused"),
        (Answer(error=Transient("down")), "transport_error"),
        (Answer("perhaps"), "parse_error"),
        (Answer("Well", truncated=True), "truncated"),
    ],
)
def test_a_judge_that_fails_is_a_state_of_the_turn_alone(answer: Answer, state: str) -> None:
    def reply(question: Question) -> Answer:
        return answer if "made of glass" in spoken(question) else reads_white(question)

    values = scorer(judge=ScriptedJudge(reply)).score(views())
    states = {name: score.state for name, score in zip(EDITS, values, strict=True)}
    assert states == {name: state if name == "material_alter" else "ok" for name in EDITS}
    assert dict(zip(EDITS, values, strict=True))["material_alter"].value is None


def test_an_empty_reply_is_no_no() -> None:
    values = scorer("published", ScriptedJudge(lambda question: Answer(""))).score(views())
    asked = [name for name in EDITS if name not in ("subject_remove", "count_change")]
    assert {name: score.state for name, score in zip(EDITS, values, strict=True) if name in asked} == dict.fromkeys(
        asked, "parse_error"
    )


class Blind(PixelDetector):
    """Runs out of memory on dark images."""

    def detect(self, image: Image.Image, names: Sequence[str], threshold: float) -> list[Detection]:
        if image.getpixel((0, 0)) == (0, 0, 0):
            raise MemoryError("no room")
        return super().detect(image, names, threshold)


@pytest.mark.parametrize("mode", ["fixed", "published"])
def test_a_detector_that_fails_takes_no_other_turn_with_it(mode: str) -> None:
    scores = ask(scorer(mode, detector=Blind()), views())
    states = dict(zip(EDITS, (score.state for score in scores), strict=True))
    assert states == {name: "infra_error" if name == "background_change" else "ok" for name in EDITS}
    assert scores[-1].reason == "MemoryError: no room"


def test_what_is_not_to_be_seen_before_is_not_applicable_when_fixed_and_a_failure_as_published() -> None:
    form, before, after = EDITS["count_change"]
    view = TurnView(session(("count_change", form)), 1, 1, "free-running", before, scene(), after)
    (fixed,), (published,) = scorer("fixed").score([view]), scorer("published").score([view])
    assert (fixed.state, fixed.value) == ("not_applicable", None)
    assert (published.state, published.value) == ("ok", 0.0)
    assert fixed.reason == published.reason == "no red box is detected in the image before"


def test_an_earlier_image_is_the_one_before_but_the_first_in_a_single_shot() -> None:
    """Free-running: the red box is counted in what the editor was shown, not in the source."""
    form, one, two = EDITS["count_change"]
    turns = session(("subject_add", "Add [red box]"), ("count_change", form), available=[["red box"]] * 2)
    free = TurnView(turns, 2, 2, "free-running", scene(), one, two)
    shot = TurnView(turns, 2, 2, "single-shot", scene(), scene(), two)
    assert [score.value for score in scorer("published").score([free, shot])] == [1.0, 0.0]


class Letters:
    """Reads YES wherever there is something white."""

    revision = "1"

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def read(self, image: Image.Image) -> list[Text]:
        self.sizes.append(image.size)
        white = (255, 255, 255) in image.get_flattened_data()
        return [Text(word, Box(0, 0, 1, 1), 0.9) for word in ("Y", "ES")] if white else []


def test_a_reader_reads_instead_of_the_judge() -> None:
    judge, reader = ScriptedJudge(reads_white), Letters()
    replaced = "Replace the text '[NO]' on [red box] with '[YES]'"
    before, after = scene(RED), scene(("white", LEFT))
    both = [
        TurnView(session(("text_change", EDITS["text_change"][0])), 1, 1, "free-running", scene(), scene(), after),
        TurnView(session(("text_change", replaced)), 1, 1, "free-running", before, before, after),
    ]
    scores = scorer(judge=judge, reader=reader).score(both)
    assert [score.value for score in scores] == [1.0, 1.0]
    assert judge.calls == []
    assert reader.sizes == [(64, 64)] * 2 + [(12, 12)] * 2
    assert [line["read"] for line in scores[1].evidence["judge"]] == ["Y ES", ""]


def test_evidence_tells_what_was_seen_and_said() -> None:
    form, before, after = EDITS["subject_add"]
    (score,) = scorer().score([TurnView(session(("subject_add", form)), 1, 1, "free-running", before, before, after)])
    seen = score.evidence["detections"]
    assert [(look["image"], look["asked"]) for look in seen] == [
        ("before", "green box"),
        ("before", "blue box"),
        ("after", "blue box"),
    ]
    assert seen[2]["found"] == [{"name": "blue box", "score": 0.9, "box": [0.0625, 0.4375, 0.25, 0.625]}]
    assert score.evidence["judge"][0]["reply"] == 'Yes.\n{"score": "yes"}'
    assert score.reason == "blue box appeared, left of green box"


def test_yes_may_be_a_probability() -> None:
    def unsure(question: Question) -> Answer:
        return Answer("no", log_probabilities={"no": -0.6, "yes": -0.8})  # 0.55 and 0.45

    form, before, after = EDITS["color_alter"]
    view = TurnView(session(("color_alter", form)), 1, 1, "free-running", before, before, after)
    judge = ScriptedJudge(unsure, gives_probabilities=True)
    (score,) = scorer(judge=judge, judging="non-thinking").score([view])
    assert score.value == 0
    assert score.evidence["judge"][0]["probabilities"]["yes"] == pytest.approx(0.449329)
    with pytest.raises(UsageError, match="needs probabilities, which scripted does not tell"):
        scorer(judging="non-thinking")


def test_what_cannot_work_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(UsageError, match="edival-if needs a judge"):
        create("scorer", "edival-if", {"detector": PixelDetector()})
    with pytest.raises(UsageError, match="no mode 'publishd': did you mean published"):
        scorer("publishd")
    with pytest.raises(UsageError, match="leave out reader="):
        scorer("published", reader=Letters())
    with pytest.raises(UsageError, match="there is no folder"):
        scorer(detector="grounding-dino:pretrained=./nothing")


def test_a_benchmark_of_another_schema_ends_the_run_and_one_bad_turn_does_not() -> None:
    image = scene(RED)
    other = Session("s", "s", (Turn("Paint it", "color_alter", {"shows": 1}),))
    with pytest.raises(UsageError, match="benchmarks of EdiVal's schema"):
        ask(scorer(), [TurnView(other, 1, 1, "free-running", image, image, image)])
    odd = session(("color_alter", "Make [red box] [blue]"), ("paint", "Paint"))
    bad = [TurnView(odd, turn, turn, "free-running", image, image, image) for turn in (1, 2)]
    scores = ask(scorer(), [*views(), *bad])
    assert [score.state for score in scores] == ["ok"] * len(EDITS) + ["infra_error"] * 2
    assert scores[-2].reason == (
        "ValueError: 'Make [red box] [blue]' has no object, color that could be read as color_alter"
    )


def test_sessions_of_ones_own_need_the_slots_alone() -> None:
    """No form with brackets, no pools of objects: what a user writes down by hand."""
    before, after = EDITS["color_alter"][1:]
    turns = (
        Turn("Make the box blue", "color_alter", {"object": "red box", "color": "blue"}),
        Turn("Make it green", "color_alter", {"object": "red box", "color": "green"}),
        Turn("Go to the park", "background_change", {"background": "park"}),
    )
    own = Session("mine", "mine", turns)
    shown_to = TurnView(own, 1, 1, "free-running", before, before, after)
    judge = ScriptedJudge(reads_white)
    assert [scorer(mode, judge).score([shown_to])[0].value for mode in ("fixed", "published")] == [1.0, 1.0]
    assert "Make the box blue." in spoken(judge.questions[-1])
    assert overtaken(own, 1, 2) == "turn 2 changes red box again"
    assert overtaken(own, 2, 3) is None


CHAIN = session(
    ("color_alter", "Change the color of [red box] to [blue]"),
    ("material_alter", "Change the material of [blue box] to [glass]"),
    ("subject_replace", "Replace [glass blue box] with [dog]"),
    ("subject_add", "Add [red box] on the [left] of [dog]"),
    ("position_change", "Change the position of [red box] to [above] of [dog]"),
    ("background_change", "Change the background to [park]|, remain the dog, red box unchanged"),
    ("background_change", "Change the background to [beach]|, remain the dog unchanged"),
    available=[
        ["cup", "blue box"],
        ["cup", "glass blue box"],
        ["cup", "dog"],
        ["cup", "dog", "red box"],
        ["cup", "dog", "red box"],
        ["dog"],  # as in the benchmark, which asks to keep the red box and forgets it
        ["dog"],
    ],
    unchanged=[["cup"]] * 5 + [[]] * 2,
)


@pytest.mark.parametrize(
    ("judged", "turn", "reason"),
    [
        (1, 1, None),
        (1, 2, None),  # still blue, under a new name
        (1, 3, "turn 3 takes glass blue box away"),
        (2, 3, "turn 3 takes glass blue box away"),
        (3, 6, None),
        (4, 5, "turn 5 changes red box again"),
        (5, 6, None),
        (5, 7, "the background of turn 7 keeps no red box"),
        (6, 7, "turn 7 changes the background again"),
    ],
)
def test_an_instruction_is_judged_on_what_later_ones_leave_of_it(judged: int, turn: int, reason: str | None) -> None:
    assert overtaken(CHAIN, judged, turn) == reason


def test_what_was_removed_may_come_back() -> None:
    turns = ("subject_remove", "Remove [cup]"), ("subject_add", "Add [cup]")
    back = session(*turns, available=[["dog"], ["dog", "cup"]], unchanged=[["dog"]] * 2)
    assert overtaken(back, 1, 2) == "turn 2 brings cup back"
    assert overtaken(session(*turns[:1], turns[0], available=[["dog"]] * 2), 1, 2) is None


def test_only_fixed_leaves_out_what_is_overtaken() -> None:
    """Published: the red box had to be added, and is missed once it is removed."""
    turns = ("subject_add", "Add [red box]"), ("subject_remove", "Remove [red box]")
    both = session(*turns, available=[["red box"], []])
    views = [TurnView(both, 2, judged, "single-shot", scene(), scene(), scene(GREEN)) for judged in (1, 2)]
    assert [score.state for score in scorer("fixed").score(views)] == ["not_applicable"] * 2
    assert [score.value for score in scorer("published").score(views)] == [0.0, 0.0]


def test_a_background_need_not_keep_what_a_later_turn_takes_away() -> None:
    turns = (
        ("background_change", "Change the background to [park]|, remain the dog, cup unchanged"),
        ("subject_remove", "Remove [cup]"),
    )
    of = session(*turns, available=[["dog", "cup"], ["dog"]])
    assert outlasting(of, 1, 2)["kept_objects"] == ["dog"]
    assert outlasting(of, 1, 1)["kept_objects"] == ["dog", "cup"]


@pytest.mark.skipif("MTEVAL_EDIVAL_CSV" not in os.environ, reason="MTEVAL_EDIVAL_CSV names no instructions file")
def test_every_turn_of_the_benchmark_has_what_its_rule_needs() -> None:
    sessions = [
        session_of(str(image), rows, "clean") for image, rows in read(Path(os.environ["MTEVAL_EDIVAL_CSV"])).items()
    ]
    turns = [turn for of in sessions for turn in of.turns]
    assert len(turns) == 1716
    assert all(slot in turn.slots for turn in turns for slot in NEEDED[turn.task_type])
    pairs = [(of, judged, turn) for of in sessions for turn in (2, 3) for judged in range(1, turn)]
    assert len(pairs) == 1716
    assert sum(overtaken(of, judged, turn) is not None for of, judged, turn in pairs) == 147
