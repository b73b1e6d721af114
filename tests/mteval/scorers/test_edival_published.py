"""The published rules of EdiVal-IF, every branch and every quirk, on recorded detections and answers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mteval.perception.base import Detection
from mteval.scorers.edival.published import RULES, singular
from mteval.scorers.edival.rules import AFTER, BEFORE, Look, Place
from tests.mteval.scorers.edival_script import Outcome, Seen, box, decide, slots

LEFT, MIDDLE, RIGHT = box(0.1, 0.4, 0.3, 0.6), box(0.4, 0.4, 0.6, 0.6), box(0.7, 0.4, 0.9, 0.6)
WHOLE = box(0.0, 0.0, 0.99, 0.99)


def judge(task_type: str, form: str, seen: Seen, *said: str, instruction: str | None = None) -> Outcome:
    return decide(RULES[task_type], slots(task_type, form, instruction), seen, said)


def added(seen: Seen, said: str = "yes", form: str = "Add [cat] on the [left] of [dog]") -> Outcome:
    return judge("subject_add", form, seen, said)


@pytest.mark.parametrize(
    ("said", "holds"), [("Yes, it did.", True), ("no", False), ("Not since yesterday", True), ("Unsure", False)]
)
def test_yes_anywhere_in_the_reply_is_a_yes(said: str, holds: bool) -> None:
    assert added({(AFTER, "cat"): [LEFT]}, said, "Add [cat]").holds is holds


def test_an_added_object_is_not_looked_for_where_the_judge_sees_none() -> None:
    assert added({}, "No.").names == []


def test_an_added_object_has_to_be_detected_and_beside_its_reference() -> None:
    seen = {(AFTER, "cat"): [LEFT], (BEFORE, "dog"): [MIDDLE]}
    assert added(seen).holds is True
    assert added({**seen, (AFTER, "cat"): [RIGHT]}).holds is False
    assert added({**seen, (AFTER, "cat"): []}).verdict.reason == "no cat is detected in the image after"
    assert added({**seen, (BEFORE, "dog"): []}).verdict.reason == "no dog is detected in the image before"
    assert added({**seen, (AFTER, "cat"): [box(0.1, 0.4, 0.3, 0.6, score=0.29)]}).holds is False


def test_any_two_boxes_may_show_that_it_is_beside() -> None:
    """A second dog far to the right makes up for the one that the cat should be left of."""
    assert added({(AFTER, "cat"): [MIDDLE], (BEFORE, "dog"): [LEFT, RIGHT]}).holds is True


boxes = st.builds(
    lambda x, y, w, h: box(x, y, x + w, y + h), *[st.floats(0, 0.5) for _ in range(2)], *[st.floats(0.01, 0.5)] * 2
)


@given(st.lists(boxes, min_size=1, max_size=4), st.lists(boxes, min_size=1, max_size=4), st.sampled_from("lrab"))
def test_beside_is_a_share_of_the_side_in_the_asked_direction(
    cats: list[Detection], dogs: list[Detection], first: str
) -> None:
    direction = {"l": "left", "r": "right", "a": "above", "b": "below"}[first]
    sign, axis = {"left": (-1, 0), "right": (1, 0), "above": (-1, 1), "below": (1, 1)}[direction]

    def center(one: Detection) -> float:
        return [(one.box.left + one.box.right) / 2, (one.box.top + one.box.bottom) / 2][axis]

    wanted = max(sign * (center(cat) - center(dog)) for cat in cats for dog in dogs)
    if abs(wanted - 0.03) < 1e-9:
        return
    seen = {(AFTER, "cat"): cats, (BEFORE, "dog"): dogs}
    assert added(seen, form=f"Add [cat] on the [{direction}] of [dog]").holds is (wanted > 0.03)


def removed(seen: Seen, name: str = "dog") -> Outcome:
    return judge("subject_remove", f"Remove [{name}]", seen)


def test_what_is_removed_was_there_and_is_no_longer_there() -> None:
    assert removed({(BEFORE, "dog"): [LEFT]}).holds is True
    assert removed({(BEFORE, "dog"): [LEFT], (AFTER, "dog"): [LEFT]}).holds is False
    assert removed({(AFTER, "dog"): [LEFT]}).verdict == (False, "no dog is detected in the image before")
    assert removed({(BEFORE, "dog"): [box(0.1, 0.1, 0.2, 0.2, score=0.34)]}).holds is False


def test_a_removed_object_may_move_or_leave_a_second_one() -> None:
    """Quirk: only the surest box is looked at."""
    assert removed({(BEFORE, "dog"): [LEFT], (AFTER, "dog"): [RIGHT]}).holds is True
    second = box(0.7, 0.4, 0.9, 0.6, score=0.8)
    assert removed({(BEFORE, "dog"): [LEFT, second], (AFTER, "dog"): [second]}).holds is True


def test_a_box_of_the_whole_image_is_no_object_to_be_removed() -> None:
    assert removed({(BEFORE, "dog"): [WHOLE]}).holds is False
    assert removed({(BEFORE, "dog"): [LEFT], (AFTER, "dog"): [WHOLE]}).holds is True
    wide = box(0.0, 0.2, 1.0, 0.9)
    assert removed({(BEFORE, "dog"): [wide], (AFTER, "dog"): [wide]}).holds is False


@pytest.mark.parametrize(
    ("name", "word"), [("felt brown hat", "hat"), ("White Bird", "bird"), ("hatchback car", "hat"), ("dog", None)]
)
def test_a_hat_or_bird_that_is_not_found_by_its_bare_word_counts_as_removed(name: str, word: str | None) -> None:
    """Quirk: wherever the letters stand in the name."""
    seen = {(BEFORE, name): [LEFT], (AFTER, name): [LEFT]}
    assert removed(seen, name).holds is (word is not None)
    if word:
        assert removed({**seen, (AFTER, word): [LEFT]}, name).holds is False
        assert removed({**seen, (AFTER, word): [WHOLE]}, name).holds is True


def replaced(seen: Seen, said: str = "yes", form: str = "Replace [dog] with [cat]") -> Outcome:
    return judge("subject_replace", form, seen, said)


def test_the_new_object_overlaps_the_old_one() -> None:
    assert replaced({(BEFORE, "dog"): [LEFT], (AFTER, "cat"): [box(0.29, 0.4, 0.5, 0.6)]}).holds is True
    assert replaced({(BEFORE, "dog"): [LEFT], (AFTER, "cat"): [MIDDLE]}).holds is False
    assert replaced({(BEFORE, "dog"): [LEFT]}).verdict.reason == "no cat is detected in the image after"
    assert replaced({(AFTER, "cat"): [LEFT]}).verdict.reason == "no dog is detected in the image before"
    assert replaced({(BEFORE, "dog"): [LEFT], (AFTER, "cat"): [LEFT]}, "no").names == []


@pytest.mark.parametrize(
    ("name", "asked"), [("horses", "hors"), ("glass", "glas"), ("dogs", "dog"), ("shoes", "sho"), ("bird", "bird")]
)
def test_names_lose_what_looks_like_a_plural(name: str, asked: str) -> None:
    assert singular(name) == asked
    seen = {(BEFORE, asked): [LEFT], (AFTER, "cat"): [LEFT]}
    outcome = replaced(seen, form=f"Replace [{name}] with [cats]")
    assert outcome.holds is True
    assert outcome.names == [asked, "cat"]


def moved(seen: Seen, direction: str = "left", bare: tuple[str, ...] = ("cat", "dog")) -> Outcome:
    """``bare``: what the judge makes of the names, as far as it is asked."""
    form = f"Change the position of [white cat] to [{direction}] of [wooden dog]"
    counts = {(side, name): [MIDDLE] for side in (BEFORE, AFTER) for name in bare}
    return judge("position_change", form, {**counts, **seen}, *bare)


CAT_LEFT = {(AFTER, "white cat"): [LEFT], (AFTER, "wooden dog"): [RIGHT]}


def test_positions_are_compared_in_the_image_after_alone() -> None:
    """Quirk: the edit may have been done before it was asked for, and an editor that does nothing passes."""
    assert moved(CAT_LEFT).holds is True
    assert moved(CAT_LEFT, "right").holds is False
    assert moved(CAT_LEFT, "above").holds is False  # as high as the other: strictly
    as_before = {(BEFORE, name): found for (_, name), found in CAT_LEFT.items()}
    assert moved({**CAT_LEFT, **as_before}).holds is True


def test_positions_need_no_margin_but_a_whole_pixel() -> None:
    half = box(0.7 - 0.4 / 512, 0.1, 0.9 - 0.4 / 512, 0.3)
    assert moved({**CAT_LEFT, (AFTER, "white cat"): [half]}).holds is False
    whole = box(0.7 - 1.1 / 512, 0.1, 0.9 - 1.1 / 512, 0.3)
    assert moved({**CAT_LEFT, (AFTER, "white cat"): [whole]}).holds is True


def test_positions_are_of_the_surest_boxes_and_not_one_in_the_other() -> None:
    surer = box(0.7, 0.4, 0.9, 0.6, score=0.95)
    other = {(AFTER, "wooden dog"): [MIDDLE]}
    assert moved({**CAT_LEFT, **other, (AFTER, "white cat"): [LEFT, surer]}).holds is False
    inner = {(AFTER, "white cat"): [box(0.7, 0.45, 0.75, 0.5)]}
    assert moved({**CAT_LEFT, **inner}).verdict.reason == "white cat and wooden dog lie one in the other"
    outer = {(AFTER, "white cat"): [box(0.1, 0.1, 1.0, 1.0)]}
    assert moved({**CAT_LEFT, **outer}).holds is False
    assert moved({**CAT_LEFT, (AFTER, "wooden dog"): []}).verdict.reason == (
        "no wooden dog is detected in the image after"
    )


@pytest.mark.parametrize("name", ["cat", "dog"])
def test_positions_need_as_many_as_before_by_the_stripped_names(name: str) -> None:
    twice = {(AFTER, name): [LEFT, RIGHT]}
    asked = ("cat",) if name == "cat" else ("cat", "dog")
    assert moved({**CAT_LEFT, **twice}, bare=asked).verdict.reason == f"1 {name} before, 2 after"
    doubled = {(AFTER, name): [MIDDLE, box(0.41, 0.4, 0.6, 0.6, score=0.8)]}  # the same thing found twice
    assert moved({**CAT_LEFT, **doubled}).holds is True
    unsure = {(AFTER, name): [MIDDLE, box(0.1, 0.1, 0.2, 0.2, score=0.39)]}
    assert moved({**CAT_LEFT, **unsure}).holds is True


def test_the_judge_strips_names_without_an_image() -> None:
    outcome = moved(CAT_LEFT, bare=("the cat", "the dog"))
    assert outcome.names == ["the cat"] * 2 + ["the dog"] * 2 + ["white cat", "wooden dog"]
    for question in outcome.questions:
        assert not any(isinstance(part, Place) for part in question.parts)


def counted(before: list[Detection], after: list[Detection]) -> Outcome:
    return judge("count_change", "Change the count of [cup] to [2]", {(BEFORE, "cup"): before, (AFTER, "cup"): after})


def test_the_count_is_exact_and_may_have_been_so_before() -> None:
    assert counted([LEFT], [LEFT, RIGHT]).holds is True
    assert counted([LEFT], [LEFT]).holds is False
    assert counted([LEFT], [LEFT, MIDDLE, RIGHT]).holds is False
    assert counted([], [LEFT, RIGHT]).verdict.reason == "no cup is detected in the image before"
    assert counted([LEFT], [LEFT, RIGHT, box(0.71, 0.4, 0.9, 0.6, score=0.7)]).holds is True  # one found twice
    assert counted([LEFT, RIGHT], [LEFT, RIGHT]).holds is True  # quirk


@pytest.mark.parametrize(
    ("task_type", "form"),
    [
        ("color_alter", "Change the color of [fence] to [red]"),
        ("material_alter", "Change the material of [fence] to [glass]"),
    ],
)
def test_colour_and_material_are_the_judges_alone_on_whole_images(task_type: str, form: str) -> None:
    outcome = judge(task_type, form, {}, "Yes")
    assert outcome.holds is True
    assert judge(task_type, form, {}, "No").holds is False
    assert outcome.names == []
    (question,) = outcome.questions
    assert [part for part in question.parts if isinstance(part, Place)] == [Place(BEFORE), Place(AFTER)]
    assert any(form in part for part in question.parts if isinstance(part, str))


def test_replaced_text_is_read_where_the_object_was_before() -> None:
    form = "Replace the text '[STOP]' on [sign] with '[Go]'"
    seen = {(BEFORE, "sign"): [LEFT], (AFTER, "sign"): [RIGHT]}
    outcome = judge("text_change", form, seen, "The sign says: LET'S GO!")
    assert outcome.holds is True
    (question,) = outcome.questions
    assert question.parts[0] == Place(AFTER, LEFT.box)
    assert judge("text_change", form, seen, "STOP").holds is False
    for side, missing in ((BEFORE, AFTER), (AFTER, BEFORE)):
        reason = judge("text_change", form, {(side, "sign"): [LEFT]}).verdict.reason
        assert reason == f"no sign is detected in the image {missing}"


def test_added_text_is_a_part_of_what_is_read_in_the_whole_image() -> None:
    form = "Add text '[EXIT]' on the image"
    outcome = judge("text_change", form, {}, "no exits")  # quirk: a part of a word, and it may have been there before
    assert outcome.holds is True
    assert outcome.questions[0].parts[0] == Place(AFTER)
    assert judge("text_change", form, {}, "E X I T").holds is False


PARK = "Change the background to [park]"
REMAIN = "Change the background to park, remain the dog, wooden bench unchanged"


def test_a_background_keeps_every_object_and_convinces_the_judge() -> None:
    seen = {(AFTER, "dog"): [LEFT], (AFTER, "wooden bench"): [box(0.1, 0.1, 0.2, 0.2, score=0.26)]}
    outcome = judge("background_change", PARK, seen, "yes", instruction=REMAIN)
    assert outcome.holds is True
    assert [part for part in outcome.questions[0].parts if isinstance(part, Place)] == [Place(AFTER)]
    assert judge("background_change", PARK, seen, "no", instruction=REMAIN).holds is False
    lost = judge("background_change", PARK, {**seen, (AFTER, "wooden bench"): []}, instruction=REMAIN)
    assert lost.verdict == (False, "wooden bench is not kept")
    large = {**seen, (AFTER, "dog"): [box(0.0, 0.0, 0.95, 0.95)]}
    assert judge("background_change", PARK, large, instruction=REMAIN).holds is False
    high = {**seen, (AFTER, "dog"): [box(0.0, 0.0, 0.5, 0.95)]}
    assert judge("background_change", PARK, high, "yes", instruction=REMAIN).holds is True


def test_a_background_whose_instruction_names_nothing_to_keep_is_lost() -> None:
    """Seven turns of the benchmark, whatever the image."""
    outcome = judge("background_change", PARK, {}, instruction="Change the background to park")
    assert outcome.verdict == (False, "the instruction does not say which objects to keep")
    assert outcome.asked == []


def test_every_reason_is_a_sentence_for_a_person() -> None:
    for outcome in (added({}, "no"), moved(CAT_LEFT), counted([LEFT], []), removed({(BEFORE, "dog"): [LEFT]})):
        assert re.fullmatch(r"[\w' ,]+", outcome.verdict.reason)


def test_what_is_looked_for_and_how_surely() -> None:
    """Every rule to its end: image, name, threshold of each look, in their order."""
    swapped = {(BEFORE, "dog"): [LEFT], (AFTER, "cat"): [LEFT]}
    both = {(side, name): [LEFT] for side in (BEFORE, AFTER) for name in ("dog", "felt hat")}
    replaced_text = "Replace the text '[A]' on [dog] with '[B]'"
    ends = {
        "add": (added({(AFTER, "cat"): [LEFT], (BEFORE, "dog"): [MIDDLE]}), "a cat 0.3, b dog 0.3"),
        "remove": (
            removed({**both, (AFTER, "hat"): [LEFT]}, "felt hat"),
            "b felt hat 0.35, a felt hat 0.35, a hat 0.35",
        ),
        "replace": (replaced(swapped), "b dog 0.3, a cat 0.3"),
        "position": (
            moved(CAT_LEFT),
            "b cat 0.4, a cat 0.4, b dog 0.4, a dog 0.4, a white cat 0.3, a wooden dog 0.3",
        ),
        "count": (counted([LEFT], [LEFT]), "b cup 0.3, a cup 0.3"),
        "text": (judge("text_change", replaced_text, both, "B"), "b dog 0.3, a dog 0.3"),
        "background": (
            judge("background_change", PARK, both, "no", instruction=f"{PARK}, remain the dog unchanged"),
            "a dog 0.25",
        ),
    }
    for name, (outcome, looks) in ends.items():
        found = [request for request in outcome.asked if isinstance(request, Look)]
        assert ", ".join(f"{look.side[0]} {look.name} {look.threshold}" for look in found) == looks, name
