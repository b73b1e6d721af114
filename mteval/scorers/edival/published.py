"""The nine rules of EdiVal-IF as its public code has them (arXiv 2509.13399, commit a7bbdec), quirks included.

Every threshold, every step and its order are facts of that code, in words of our own; "quirk" marks what the mended
rules (:mod:`mteval.scorers.edival.fixed`) do otherwise. Both images have :data:`SIDE` pixels a side. Two things are not
kept: an error is a state of the score here, not a failure of the editor, and the judge's prompts are ours.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from mteval.perception.base import Box
from mteval.scorers.edival import prompts
from mteval.scorers.edival.boxes import distinct, inside, shift, smaller
from mteval.scorers.edival.rules import AFTER, BEFORE, Place, Request, Rule, Steps, Verdict, look, no, say, yes

SIDE = 512
"""Pixels that every image is resized to, with Lanczos' filter."""

ADDED, REMOVED, REPLACED, COUNTED, PLACED, LETTERED = 0.3, 0.35, 0.3, 0.3, 0.3, 0.3
"""Thresholds of the detector for the objects of each rule."""
KEPT = 0.25
"""The same for the objects that a new background must keep."""
STRIPPED = 0.4
"""The same for the counts of a position change, whose names are stripped of colour and material."""
MARGIN = 0.03
"""How far beside its reference an added object has to be, in shares of the image's side."""
MOVED = 0.2
"""Intersection over union under which a removed object is no longer where it was."""
WHOLE_IMAGE = 0.98
"""Boxes wider and taller than this are no object to be removed."""
WHOLE_BACKGROUND = 0.9
"""The same for objects that a new background must keep."""
BARE_WORDS = ("hat", "bird")
"""Quirk: a removal also counts where the detector does not find this word alone, if the name has it anywhere."""


def subject_add(slots: Mapping[str, Any]) -> Steps:
    name = slots["object"]
    if not (yield from _says_yes(*prompts.compared(prompts.appeared(name)))):
        return no(f"the judge sees no {name} that newly appeared")
    added = yield from look(AFTER, name, ADDED)
    if not added:
        return no(f"no {name} is detected in the image after")
    if "direction" not in slots:
        return yes(f"{name} appeared and is detected")
    beside, direction = slots["reference_object"], slots["direction"]
    reference = yield from look(BEFORE, beside, ADDED)
    if not reference:
        return no(f"no {beside} is detected in the image before")
    # Quirk: any two boxes will do.
    if any(shift(one.box, other.box, direction) > MARGIN for one in added for other in reference):
        return yes(f"{name} appeared, {direction} of {beside}")
    return no(f"no {name} is {direction} of {beside}")


def subject_remove(slots: Mapping[str, Any]) -> Steps:
    """Quirk: the surest box alone counts, so a second one may stay, and one that moved is gone."""
    name = slots["object"]
    before = smaller((yield from look(BEFORE, name, REMOVED)), WHOLE_IMAGE)
    if not before:
        return no(f"no {name} is detected in the image before")
    after = smaller((yield from look(AFTER, name, REMOVED)), WHOLE_IMAGE)
    if not after:
        return yes(f"no {name} is detected any more")
    if before[0].box.overlap(after[0].box) < MOVED:
        return yes(f"{name} is no longer where it was")
    for word in BARE_WORDS:
        if word in name.lower() and not smaller((yield from look(AFTER, word, REMOVED)), WHOLE_IMAGE):
            return yes(f"no {word} is detected any more")
    return no(f"{name} is still there")


def subject_replace(slots: Mapping[str, Any]) -> Steps:
    old, new = slots["object"], slots["new_object"]
    if not (yield from _says_yes(*prompts.compared(prompts.replaced(old, new)))):
        return no(f"the judge does not see {old} replaced by {new}")
    old, new = singular(old), singular(new)
    before = yield from look(BEFORE, old, REPLACED)
    if not before:
        return no(f"no {old} is detected in the image before")
    after = yield from look(AFTER, new, REPLACED)
    if not after:
        return no(f"no {new} is detected in the image after")
    if any(one.box.overlap(other.box) > 0 for one in before for other in after):
        return yes(f"{new} is where {old} was")
    return no(f"{new} is detected, but not where {old} was")


def singular(name: str) -> str:
    """Quirk: "horses" becomes "hors", "glass" becomes "glas"."""
    return name.removesuffix("es") if name.endswith("es") else name.removesuffix("s")


def position_change(slots: Mapping[str, Any]) -> Steps:
    """Quirk: what is asked for may have been so before."""
    name, beside, direction = slots["object"], slots["reference_object"], slots["direction"]
    for whole in (name, beside):
        bare = (yield from say(prompts.bare_name(whole))).strip()
        before = distinct((yield from look(BEFORE, bare, STRIPPED)))
        after = distinct((yield from look(AFTER, bare, STRIPPED)))
        if len(before) != len(after):
            return no(f"{len(before)} {bare} before, {len(after)} after")
    target = yield from look(AFTER, name, PLACED)
    reference = yield from look(AFTER, beside, PLACED)
    for whole, found in ((name, target), (beside, reference)):
        if not found:
            return no(f"no {whole} is detected in the image after")
    box, other = target[0].box, reference[0].box
    if inside(box, other) or inside(other, box):
        return no(f"{name} and {beside} lie one in the other")
    if shift(_in_pixels(box), _in_pixels(other), direction) > 0:
        return yes(f"{name} is {direction} of {beside}")
    return no(f"{name} is not {direction} of {beside}")


def count_change(slots: Mapping[str, Any]) -> Steps:
    """Quirk: there may have been as many before."""
    name, wanted = slots["object"], slots["count"]
    if not (yield from look(BEFORE, name, COUNTED)):
        return no(f"no {name} is detected in the image before")
    seen = len(distinct((yield from look(AFTER, name, COUNTED))))
    return Verdict(seen == wanted, f"{seen} of {wanted} {name} are detected in the image after")


def alter(slots: Mapping[str, Any]) -> Steps:
    """Colour and material. Quirk: the judge is shown both images whole, not the object."""
    if (yield from _says_yes(*prompts.compared(prompts.applied(slots["format_instruction"])))):
        return yes("the judge finds it applied, accurate, complete and natural")
    return no("the judge does not find it applied, accurate, complete and natural")


def text_change(slots: Mapping[str, Any]) -> Steps:
    """Quirk: a part of what is read will do, also where it was there before."""
    wanted, place = slots["new_text"], Place(AFTER)
    if "object" in slots:
        before = yield from look(BEFORE, slots["object"], LETTERED)
        after = yield from look(AFTER, slots["object"], LETTERED)
        if not before or not after:
            where = "after" if before else "before"
            return no(f"no {slots['object']} is detected in the image {where}")
        place = Place(AFTER, before[0].box)  # quirk: where it was before
    read = yield from say(place, prompts.READ)
    if wanted.lower() in read.lower():
        return yes(f"'{wanted}' is read")
    return no(f"'{wanted}' is not in what is read")


def background_change(slots: Mapping[str, Any]) -> Steps:
    background = slots["background"]
    if "kept_objects" not in slots:  # quirk: so in seven turns of the benchmark, which nobody can win
        return no("the instruction does not say which objects to keep")
    for name in slots["kept_objects"]:
        if not smaller((yield from look(AFTER, name, KEPT)), WHOLE_BACKGROUND):
            return no(f"{name} is not kept")
    if (yield from _says_yes(Place(AFTER), prompts.shows_background(background))):
        return yes(f"the background is {background}, and every object is kept")
    return no(f"the judge does not see {background} as the background")


RULES: Mapping[str, Rule] = {
    "subject_add": subject_add,
    "subject_remove": subject_remove,
    "subject_replace": subject_replace,
    "material_alter": alter,
    "color_alter": alter,
    "text_change": text_change,
    "position_change": position_change,
    "count_change": count_change,
    "background_change": background_change,
}


def _says_yes(*parts: str | Place) -> Generator[Request, Any, bool]:
    """Quirk: "yes" anywhere in the reply, in "yesterday" too."""
    *shown, question = parts
    said = yield from say(*shown, f"{question}{prompts.YES_OR_NO}")
    return "yes" in said.lower()


def _in_pixels(box: Box) -> Box:
    """Quirk: centres are whole pixels, so what is less than one apart is neither left nor right."""
    x, y = (int(share * SIDE) for share in box.center)
    return Box(x, y, x, y)
