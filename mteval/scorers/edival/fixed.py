"""The nine rules of EdiVal-IF, mended: an edit that changes nothing passes none of them.

- What is not to be seen in the image before is ``nothing`` to judge: the detector may be blind to it, or an earlier
  edit may have lost it, which is that edit's fault and is measured by turn success and content consistency.
- What was so before is no edit either: nothing to judge where the detector sees it (a place, a number), a "no" in what
  the judge is asked elsewhere.
- Names are asked for as they are.
- The judge is shown the object, not the whole image, where the edit is about one.

Thresholds are those of :mod:`mteval.scorers.edival.published`, but for the two here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mteval.perception.base import Box, Detection
from mteval.scorers.edival import prompts
from mteval.scorers.edival.boxes import around, distinct, inside, shift, smaller
from mteval.scorers.edival.published import (
    ADDED,
    COUNTED,
    KEPT,
    LETTERED,
    MARGIN,
    PLACED,
    REMOVED,
    REPLACED,
    STRIPPED,
    WHOLE_BACKGROUND,
    WHOLE_IMAGE,
)
from mteval.scorers.edival.rules import (
    AFTER,
    BEFORE,
    Place,
    Rule,
    Steps,
    Verdict,
    agree,
    letters,
    look,
    no,
    nothing,
    unchanged,
    yes,
)

ALTERED = 0.3
"""Threshold of the detector for what gets another colour or material (ours: there is no detection in the published
rule; that of all other objects there)."""
SAME_PLACE = 0.5
"""Intersection over union from which on what is detected after was there before (ours: as detection is commonly
scored)."""

_SAME_IMAGE = no("the image after is the image before")


def subject_add(slots: Mapping[str, Any]) -> Steps:
    """A new one, at a place where none was, beside the reference as it was before."""
    name = slots["object"]
    reference = None
    if "direction" in slots:
        beside, direction = slots["reference_object"], slots["direction"]
        reference = yield from look(BEFORE, beside, ADDED)
        if not reference:
            return _unseen(beside)
    if (yield from unchanged()):
        return _SAME_IMAGE
    before = yield from look(BEFORE, name, ADDED)
    after = distinct((yield from look(AFTER, name, ADDED)))
    new = [one for one in after if all(one.box.overlap(other.box) < SAME_PLACE for other in before)]
    if not new:
        return no(f"no {name} is detected where none was before")
    if reference and not any(shift(one.box, other.box, direction) > MARGIN for one in new for other in reference):
        return no(f"the new {name} is not {direction} of {beside}")
    if (yield from agree(*prompts.compared(prompts.appeared(name)))):
        return yes(f"{name} appeared, {direction} of {beside}" if reference else f"{name} appeared and is detected")
    return no(f"the judge sees no {name} that newly appeared")


def subject_remove(slots: Mapping[str, Any]) -> Steps:
    """It was there, and none is left, wherever."""
    name = slots["object"]
    before = distinct(smaller((yield from look(BEFORE, name, REMOVED)), WHOLE_IMAGE))
    if not before:
        return _unseen(name)
    after = distinct(smaller((yield from look(AFTER, name, REMOVED)), WHOLE_IMAGE))
    if after:
        return no(f"{len(after)} {name} detected in the image after, {len(before)} before")
    return yes(f"none of {len(before)} {name} is left")


def subject_replace(slots: Mapping[str, Any]) -> Steps:
    """Where the old one was, the detector now sees more of the new and less of the old.

    Names may be close ("metal railing", "wooden railing"), so that either finds both: the difference of the two scores
    has to rise.
    """
    old, new = slots["object"], slots["new_object"]
    old_before = yield from look(BEFORE, old, REPLACED)
    if not old_before:
        return _unseen(old)
    if (yield from unchanged()):
        return _SAME_IMAGE
    place = [one.box for one in old_before]
    new_after = _surest((yield from look(AFTER, new, REPLACED)), place)
    if not new_after:
        return no(f"no {new} is detected where {old} was")
    was = _surest((yield from look(BEFORE, new, REPLACED)), place) - _surest(old_before, place)
    now = new_after - _surest((yield from look(AFTER, old, REPLACED)), place)
    if now <= was:
        return no(f"what is there looks no more like {new} beside {old} than before")
    if (yield from agree(*prompts.compared(prompts.replaced(old, new)))):
        return yes(f"{new} is where {old} was")
    return no(f"the judge does not see {old} replaced by {new}")


def position_change(slots: Mapping[str, Any]) -> Steps:
    """It was not there, it is there now, and there are as many of both as before."""
    name, beside, direction = slots["object"], slots["reference_object"], slots["direction"]
    targets, references = {}, {}
    for side in (BEFORE, AFTER):
        targets[side] = yield from look(side, name, PLACED)
        references[side] = yield from look(side, beside, PLACED)
    for whole, found in ((name, targets), (beside, references)):
        if not found[BEFORE]:
            return _unseen(whole)
    was, was_beside = targets[BEFORE][0].box, references[BEFORE][0].box
    if _beside(was, was_beside, direction):
        return nothing(f"{name} was {direction} of {beside} before")
    for whole, found in ((name, targets), (beside, references)):
        if not found[AFTER]:
            return no(f"no {whole} is detected in the image after")
        before, after = (sum(one.score >= STRIPPED for one in distinct(found[side])) for side in (BEFORE, AFTER))
        if before != after:
            return no(f"{before} {whole} before, {after} after")
    now, now_beside = targets[AFTER][0].box, references[AFTER][0].box
    moved = shift(now, now_beside, direction) - shift(was, was_beside, direction)
    if _beside(now, now_beside, direction) and moved > MARGIN:
        return yes(f"{name} is {direction} of {beside}")
    return no(f"{name} is not {direction} of {beside}")


def count_change(slots: Mapping[str, Any]) -> Steps:
    """There were some, but not so many, and now there are."""
    name, wanted = slots["object"], slots["count"]
    before = len(distinct((yield from look(BEFORE, name, COUNTED))))
    if not before:
        return _unseen(name)
    if before == wanted:
        return nothing(f"there were {wanted} {name} before")
    after = len(distinct((yield from look(AFTER, name, COUNTED))))
    return Verdict(after == wanted, f"{after} of {wanted} {name} are detected in the image after, {before} before")


def color_alter(slots: Mapping[str, Any]) -> Steps:
    return (yield from _alter(slots["object"], f"{slots['color']} in color"))


def material_alter(slots: Mapping[str, Any]) -> Steps:
    return (yield from _alter(slots["object"], f"made of {slots['material']}"))


def _alter(name: str, into: str) -> Steps:
    """The judge compares the places of every such object, cut out of both images."""
    before = yield from look(BEFORE, name, ALTERED)
    if not before:
        return _unseen(name)
    if (yield from unchanged()):
        return _SAME_IMAGE
    box = around([one.box for one in before])
    question = prompts.turned(name, into)
    if (yield from agree(*prompts.compared(question, Place(BEFORE, box), Place(AFTER, box)))):
        return yes(f"the judge finds {name} {into}")
    return no(f"the judge does not find {name} {into}")


def text_change(slots: Mapping[str, Any]) -> Steps:
    """The new text is read, and was not before: where it is part of the old one, the old one is gone.

    Added text may stand elsewhere in the image already: then it is read once more than before.
    """
    wanted = _plain(slots["new_text"])
    box = None
    if "object" in slots:
        found = yield from look(BEFORE, slots["object"], LETTERED)
        if not found:
            return _unseen(slots["object"])
        box = found[0].box
    if (yield from unchanged()):
        return _SAME_IMAGE
    after = _plain((yield from letters(AFTER, box)))
    if wanted not in after:
        return no(f"'{slots['new_text']}' is not in what is read")
    before = _plain((yield from letters(BEFORE, box)))
    if wanted not in before:
        return yes(f"'{slots['new_text']}' is read, and was not before")
    if box is None:
        return Verdict(after.count(wanted) > before.count(wanted), f"'{slots['new_text']}' was read before too")
    old = _plain(slots["old_text"])
    gone = old in before and old not in after
    is_left = "is gone" if gone else "is still there"
    return Verdict(gone, f"'{slots['new_text']}' was read before too, and '{slots['old_text']}' {is_left}")


def background_change(slots: Mapping[str, Any]) -> Steps:
    """Every object to be kept that was to be seen still is; seven turns of the benchmark name none."""
    background = slots["background"]
    if (yield from unchanged()):
        return _SAME_IMAGE
    for name in slots.get("kept_objects", ()):
        before = smaller((yield from look(BEFORE, name, KEPT)), WHOLE_BACKGROUND)
        if before and not smaller((yield from look(AFTER, name, KEPT)), WHOLE_BACKGROUND):
            return no(f"{name} is not kept")
    if (yield from agree(*prompts.compared(prompts.changed_background(background)))):
        return yes(f"the background is {background}, and every object to be seen is kept")
    return no(f"the judge does not see the background changed to {background}")


RULES: Mapping[str, Rule] = {
    "subject_add": subject_add,
    "subject_remove": subject_remove,
    "subject_replace": subject_replace,
    "material_alter": material_alter,
    "color_alter": color_alter,
    "text_change": text_change,
    "position_change": position_change,
    "count_change": count_change,
    "background_change": background_change,
}


def _unseen(name: str) -> Verdict:
    return nothing(f"no {name} is detected in the image before")


def _surest(found: Sequence[Detection], place: Sequence[Box]) -> float:
    """The highest score of what overlaps the place; 0 where nothing is detected there."""
    there = (one.score for one in found if any(one.box.overlap(box) > 0 for box in place))
    return max(there, default=0.0)


def _beside(box: Box, reference: Box, direction: str) -> bool:
    apart = not inside(box, reference) and not inside(reference, box)
    return apart and shift(box, reference, direction) > MARGIN


def _plain(text: str) -> str:
    """Letters and digits alone, without case: what two readers of the same sign agree on."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in folded if letter.isalnum()) or "".join(folded.split())
