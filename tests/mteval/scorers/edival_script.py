"""Scripted eyes and judges for EdiVal's rules: what is seen, said and written is a table in the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL.Image import Image
from PIL.Image import new as new_image
from skimage.measure import label, regionprops

from mteval.benchmarks.edival import turn_of
from mteval.benchmarks.edival_csv import Row
from mteval.benchmarks.edival_format import parsed
from mteval.judges.base import Answer, JudgeInfo, Question
from mteval.judges.contract import Reading
from mteval.perception.base import Box, Detection
from mteval.scorers.edival.rules import Ask, Letters, Look, Request, Rule, Verdict
from mteval.sessions import Session

Seen = Mapping[Any, Sequence[Detection]]
"""(before or after, name) -> what is found; the keys are Any because a Mapping takes no narrower ones."""


def slots(task_type: str, form: str, instruction: str | None = None) -> dict[str, Any]:
    """As the benchmark gives them."""
    instruction = form.replace("[", "").replace("]", "") if instruction is None else instruction
    return {"format_instruction": form, **parsed(task_type, form, instruction)}


def box(left: float, top: float, right: float, bottom: float, score: float = 0.9, name: str = "") -> Detection:
    return Detection(name, Box(left, top, right, bottom), score)


class Outcome(NamedTuple):
    verdict: Verdict
    asked: list[Request]

    @property
    def holds(self) -> bool | None:
        return self.verdict.holds

    @property
    def names(self) -> list[str]:
        """What was looked for."""
        return [request.name for request in self.asked if isinstance(request, Look)]

    @property
    def questions(self) -> list[Ask]:
        return [request for request in self.asked if isinstance(request, Ask)]


def decide(
    rule: Rule,
    slots: Mapping[str, Any],
    seen: Seen | None = None,
    said: Sequence[str | bool] = (),
    written: Mapping[str, str] | None = None,
    same: bool = False,
) -> Outcome:
    """Drive a rule: every judge's answer is used, or the test is wrong."""
    answers = list(said)
    asked: list[Request] = []
    steps = rule(slots)
    answer: Any = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as end:
            assert not answers, "an answer was left over"
            return Outcome(end.value, asked)
        asked.append(request)
        if isinstance(request, Look):
            found = (seen or {}).get((request.side, request.name), ())
            sure = [one for one in found if one.score >= request.threshold]
            answer = sorted(sure, key=lambda one: -one.score)
        elif isinstance(request, Ask):
            reply = answers.pop(0)
            assert isinstance(reply, bool) == request.yes_or_no
            answer = Reading("ok", float(reply)) if isinstance(reply, bool) else Reading("ok", text=reply)
        elif isinstance(request, Letters):
            answer = (written or {})[request.place.side]
        else:
            answer = same


COLORS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


class PixelDetector:
    """Finds rectangles by the color that a name begins with, exactly; remembers what it was asked.

    A name that ends with a place ("red left") is asked as any other: only its first word is looked for.
    """

    revision = "1"

    def __init__(self) -> None:
        self.asked: list[tuple[Image, tuple[str, ...], float]] = []

    def detect(self, image: Image, names: Sequence[str], threshold: float) -> list[Detection]:
        self.asked.append((image, tuple(names), threshold))
        pixels = np.asarray(image).astype(int)
        height, width = pixels.shape[:2]
        found: list[Detection] = []
        for name in names:
            color = COLORS.get(name.split()[0])
            near = np.abs(pixels - (color or (-999,) * 3)).max(axis=2) < 80
            for region in regionprops(label(near)):
                top, left, bottom, right = region.bbox
                place = Box(left / width, top / height, right / width, bottom / height)
                found.append(Detection(name, place, 0.9 - 0.01 * len(found)))
        return found


class Places:
    """Finds each name where it was put, whatever the image; two names may be one thing."""

    revision = "1"

    def __init__(self, **places: Box) -> None:
        self.places, self.asked = places, list[tuple[tuple[str, ...], float]]()

    def detect(self, image: Image, names: Sequence[str], threshold: float) -> list[Detection]:
        self.asked.append((tuple(names), threshold))
        return [Detection(name, self.places[name], 0.9) for name in names if name in self.places]


class ScriptedJudge:
    """Answers by ``reply`` and remembers the calls, each a list of questions."""

    def __init__(self, reply: Callable[[Question], Answer], **info: Any) -> None:
        self.info = JudgeInfo("scripted", "1", **{"batch_size": 64, **info})
        self.reply = reply
        self.calls: list[list[Question]] = []

    @property
    def questions(self) -> list[Question]:
        return [question for call in self.calls for question in call]

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        self.calls.append(list(questions))
        return [self.reply(question) for question in questions]


def agreeing(question: Question) -> Answer:
    """Yes to everything, in the format that is asked for; the name itself where a name is asked for."""
    text = spoken(question)
    if "A thing is called: " in text:
        return Answer(text.partition("A thing is called: ")[2].partition(".")[0])
    return Answer('Yes.\n{"score": "yes"}' if "JSON" in text else "Yes")


def spoken(question: Question) -> str:
    return "\n".join(part for part in question.parts if isinstance(part, str))


def shown(question: Question) -> list[Image]:
    return [part for part in question.parts if not isinstance(part, str)]


def scene(*rectangles: tuple[str, tuple[int, int, int, int]], size: int = 64, ground: str = "grey") -> Image:
    """A picture of colored rectangles (left, top, right, bottom), the last two exclusive."""
    image = new_image("RGB", (size, size), ground)
    for color, place in rectangles:
        image.paste(COLORS[color], place)
    return image


def session(*turns: tuple[str, str], **pools: Sequence[Sequence[str]]) -> Session:
    """A session of (task type, form), with the pools of objects after each turn.

    Args:
        pools: ``available``, ``unchanged`` and ``every`` by turn; a turn's own words of what to keep follow its form
            after a bar.
    """
    rows = []
    for number, (task_type, form) in enumerate(turns):
        form, _, more = form.partition("|")
        rows.append(
            Row(
                turn=number + 1,
                task_type=task_type,
                instruction=form.replace("[", "").replace("]", "") + more,
                form=form,
                bg_consistency=all(kind != "background_change" for kind, _ in turns[: number + 1]),
                unchanged_objects=tuple(pools.get("unchanged", [()] * len(turns))[number]),
                available_objects=tuple(pools.get("available", [()] * len(turns))[number]),
                all_objects=tuple(pools.get("every", [()] * len(turns))[number]),
            )
        )
    return Session("s", "s", tuple(turn_of(row) for row in rows))


class AgreeingJudge(ScriptedJudge):
    """:func:`agreeing`, by name."""

    def __init__(self) -> None:
        super().__init__(agreeing)


def angle(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return max(0.0, float((a * b).sum() / np.sqrt((a**2).sum()) / np.sqrt((b**2).sum())))


def reference_background(
    a: npt.NDArray[Any], b: npt.NDArray[Any], mask: npt.NDArray[np.bool_], rows: int, columns: int
) -> float:
    """From the words: tokens on a rows x columns grid, weights pooled from the mask, a weight under 0.5 is 0."""
    height, width = mask.shape
    total = [np.zeros(a.shape[1]), np.zeros(a.shape[1])]
    for row in range(rows):
        for column in range(columns):
            down = slice(int(np.floor(row * height / rows)), int(np.ceil((row + 1) * height / rows)))
            across = slice(int(np.floor(column * width / columns)), int(np.ceil((column + 1) * width / columns)))
            weight = mask[down, across].mean()
            if weight >= 0.5:
                for k, tokens in enumerate((a, b)):
                    token = tokens[row * columns + column]
                    total[k] += weight * token / np.linalg.norm(token)
    return angle(*total) if np.linalg.norm(total[0]) > 0 else 0.0
