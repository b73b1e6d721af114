"""What an instruction of EdiVal's nine types asks for, read from its form with [slots] and from its own words.

The forms (arXiv 2509.13399, the templates of its instruction generator)::

    subject_add        Add [x] on the [left|right|above|below] of [ref]; Add [x]
    subject_remove     Remove [x]
    subject_replace    Replace [x] with [y]
    material_alter     Change the material of [x] to [m]
    color_alter        Change the color of [x] to [c]
    text_change        Replace the text '[a]' on [x] with '[b]'; Add text '[b]' on the image
    position_change    Change the position of [x] to [left|right|above|below] of [ref]
    count_change       Change the count of [x] to [n]
    background_change  Change the background to [b]

Which objects a new background must keep stands in the words alone: "... , remain the a, b unchanged".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FORMS: Mapping[str, tuple[str, ...]] = {
    "subject_add": (
        r"Add \[(?P<object>[^\]]+)\] on the \[(?P<direction>[^\]]+)\] of \[(?P<reference_object>[^\]]+)\]",
        r"Add \[(?P<object>[^\]]+)\]",
    ),
    "subject_remove": (r"Remove \[(?P<object>[^\]]+)\]",),
    "subject_replace": (r"Replace \[(?P<object>[^\]]+)\] with \[(?P<new_object>[^\]]+)\]",),
    "material_alter": (r"Change the material of \[(?P<object>[^\]]+)\] to \[(?P<material>[^\]]+)\]",),
    "color_alter": (r"Change the color of \[(?P<object>[^\]]+)\] to \[(?P<color>[^\]]+)\]",),
    "text_change": (
        r"Replace the text '\[(?P<old_text>[^\]]*)\]' on \[(?P<object>[^\]]+)\] with '\[(?P<new_text>[^\]]*)\]'",
        r"Add text '\[(?P<new_text>[^\]]+)\]' on the image",
    ),
    "position_change": (
        r"Change the position of \[(?P<object>[^\]]+)\] to \[(?P<direction>[^\]]+)\] of "
        r"\[(?P<reference_object>[^\]]+)\]",
    ),
    "count_change": (r"Change the count of \[(?P<object>[^\]]+)\] to \[(?P<count>\d+)\]",),
    "background_change": (r"Change the background to \[(?P<background>[^\]]+)\]",),
}
_KEPT_OBJECTS = re.compile(r", remain the (.+) unchanged")

TASK_TYPES = tuple(_FORMS)
DIRECTIONS = ("left", "right", "above", "below")


def parsed(task_type: str, form: str, instruction: str) -> dict[str, Any]:
    """The slots of one instruction; what cannot be read is left out.

    Args:
        form: the instruction with its slots in [brackets]. instruction: in its own words.

    Returns:
        ``object`` (what is added, removed, replaced, changed, moved or counted, or what bears the text that is
        replaced; none where text is added to the image), ``new_object``, ``reference_object``, ``direction`` (left,
        right, above, below), ``count`` (an int), ``color``, ``material``, ``old_text``, ``new_text``, ``background``,
        ``kept_objects`` (a list: what a new background must keep), each where the type has it.
    """
    matches = (re.search(pattern, form) for pattern in _FORMS.get(task_type, ()))
    match = next((match for match in matches if match), None)
    slots: dict[str, Any] = match.groupdict() if match else {}
    if slots.get("direction", "left") not in DIRECTIONS:
        return {}
    if "count" in slots:
        slots["count"] = int(slots["count"])
    kept = _KEPT_OBJECTS.search(instruction)
    if task_type == "background_change" and kept:
        slots["kept_objects"] = [name.strip() for name in kept[1].split(",")]
    return slots
