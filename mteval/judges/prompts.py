"""What judges are shown and asked: every prompt of our own scorers, in one place.

Images come first, each behind a line that names it, then the instructions, one a line as ``Instruction: "..."``, then
the question. The contract of the scoring mode adds the format of the reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.scorers.base import TurnView

Parts = tuple["str | Image", ...]

INSTRUCTION = "Instruction: "
BEFORE, AFTER, FIRST = "Image before the edit:", "Image after the edit:", "First image:"

FOLLOWING = (
    "Was this instruction carried out, completely and exactly, from the image before to the image after? Judge this "
    "instruction alone: what was there before it, right or wrong, does not count. High or yes means wholly "
    "done, low or no means not done at all."
)
CONSISTENCY = (
    "Compare the last image with the first one. Is everything that none of these instructions asked to change still as "
    "it was, the objects and the background, in form, place, colour and sharpness? High or yes means "
    "nothing else changed, low or no means little is left as it was."
)
LOSS = (
    "Compare the last image with the first one. How much of what none of these instructions asked to change is lost or "
    "turned into something else? Low means nothing, high means most of it."
)
CORRUPTION = (
    "Look at the surface of the last image: noise, grids, smears, over-saturated or burnt-out colours, melted edges. "
    "How corrupted is it beside the first one? Low means clean, high means badly damaged."
)
TRAJECTORY_FOLLOWING = (
    "Look at the whole conversation. Was every instruction carried out, and is what it asked for still there at the "
    "end, unless a later one changed it? High or yes means all of them, low or no means none."
)
TRAJECTORY_CONSISTENCY = (
    "Look at the whole conversation. Is everything that no instruction asked to change still in the last image as it "
    "was in the first, in form, place, colour and sharpness? High or yes means nothing else changed, low or no means "
    "little is left."
)


def one_edit(view: TurnView, question: str) -> Parts:
    """The image that the editor was shown, what it made of it, and the instruction that is judged."""
    return BEFORE, view.previous, AFTER, view.current, _told([view.instruction.instruction], question)


def since_the_start(view: TurnView, question: str) -> Parts:
    """The first image, the current one, and every instruction up to it."""
    instructions = [turn.instruction for turn in view.session.turns[: view.turn]]
    return FIRST, view.source, AFTER, view.current, _told(instructions, question)


def conversation(view: TurnView, question: str) -> Parts:
    """The first image and every turn: what was asked, and the image that was made."""
    shown: list[str | Image] = [FIRST, view.source]
    for instruction, image in (*view.history, (view.instruction.instruction, view.current)):
        shown += [f"{_quoted(instruction)}\n{AFTER}", image]
    return (*shown, question)


def _told(instructions: Sequence[str], question: str) -> str:
    return "\n".join([*map(_quoted, instructions), question])


def _quoted(instruction: str) -> str:
    return f'{INSTRUCTION}"{instruction}"'
