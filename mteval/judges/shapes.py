"""A judge of ShapesEdit that sees no more than a vision-language model does: text and images.

It reads the picture before the edit and the instruction's words (read.py and words.py of the benchmark), and so knows
what the instruction leads to; then the exact scorers judge the picture after it. Calibration, trainers and tests have
in it a judge that is right, or wrong by as much as they ask for, without a model.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from mteval.benchmarks.shapes.edits import Edit
from mteval.benchmarks.shapes.look import Picture
from mteval.benchmarks.shapes.read import read_picture
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.words import Asked, asked_by, carried_out, named
from mteval.benchmarks.shapes.world import LEVELS, Item, Scene
from mteval.errors import UsageError
from mteval.judges import prompts
from mteval.judges.base import Answer, JudgeInfo, Question
from mteval.judges.contract import SCALES, OneToken, Reasoned
from mteval.registry import nearest
from mteval.scorers.base import TurnView
from mteval.scorers.shapes_cc import ShapesContentConsistency
from mteval.scorers.shapes_if import ShapesInstructionFollowing
from mteval.sessions import Session, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

_WORST = 0.2
"""Mean difference of pixels, RGB in [0, 1], from which on nothing counts as kept, or a surface as wholly corrupted."""
_FOLLOWING, _CONSISTENCY = ShapesInstructionFollowing(), ShapesContentConsistency()


class _Unclear(Exception):
    """What the judge says where it cannot judge."""


class _Verdict(NamedTuple):
    """How much of what is asked about is there, 0 to 1, and why; not ``graded``: 0 or 1."""

    share: float
    reason: str
    graded: bool = True


class ShapesPixels:
    """Answers the questions of :mod:`mteval.judges.prompts` about pictures of ShapesEdit.

    Whether an instruction was carried out is a verdict, 0 or 1, with the meaning of ``shapes-if``; a conversation is
    the share of its instructions that were and last. Consistency is 1 less the mean difference of what no instruction
    touched (the value of ``shapes-cc``), 0.2 or more being 0. All it says is a function of the question.

    Args:
        level: of the benchmark.
        bias: planted, from -1 to 1: above 0 the share of what was not done that is called done, below 0 the share of
            what was done that is called not done; a graded answer is shifted by it.
        noise: planted, from 0 to 1: the share of the answers that are turned round, each vote by itself.
        seed: of what is planted.

    Raises:
        UsageError: an unknown level, or a share beyond its range.
    """

    about: ClassVar[str] = "reads the pixels of ShapesEdit, as right or as wrong as it is told to be"
    arguments: ClassVar[str] = ""

    def __init__(self, level: str = "standard", bias: float = 0.0, noise: float = 0.0, seed: int = 0) -> None:
        if level not in LEVELS:
            raise UsageError(f"judge 'shapes-pixels' has no level '{level}': {nearest(level, list(LEVELS))}")
        if not (-1 <= bias <= 1 and 0 <= noise <= 1):
            raise UsageError(f"bias is from -1 to 1 and noise from 0 to 1, not {bias} and {noise}")
        self.level, self.bias, self.noise, self.seed = LEVELS[level], bias, noise, seed
        planted = "".join(f", {name} {value:g}" for name, value in (("bias", bias), ("noise", noise)) if value)
        revision = f"1, level {level}{planted}" + (f", seed {seed}" if planted else "")
        self.info = JudgeInfo("shapes-pixels", revision, gives_probabilities=True)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [self._timed(question) for question in questions]

    def _timed(self, question: Question) -> Answer:
        began = time.perf_counter()
        answer = self._answer(question)
        return replace(answer, latency=time.perf_counter() - began)

    def _answer(self, question: Question) -> Answer:
        text = "\n".join(part for part in question.parts if isinstance(part, str))
        contract = _contract(text)
        if contract is None:
            return Answer("I rate pictures on a scale, and was told of none.")
        try:
            verdict = self._verdict(text, question.parts)
        except _Unclear as unclear:
            return Answer(f"I cannot tell: {unclear}.")
        share, scale = self._planted(verdict, question), contract.scale
        if isinstance(contract, OneToken):  # its expectation lies wherever it should
            return contract.write(scale.low + share * (scale.high - scale.low))
        grade = min(scale.values.values(), key=lambda value: abs(scale.share(value) - share))
        return contract.write(grade, verdict.reason)

    def _verdict(self, text: str, parts: Sequence[str | Image]) -> _Verdict:
        known: dict[str, Callable[[Sequence[Asked], Sequence[Image]], _Verdict]] = {
            prompts.FOLLOWING: self._following,
            prompts.CONSISTENCY: self._consistency,
            prompts.LOSS: self._loss,
            prompts.CORRUPTION: self._corruption,
            prompts.TRAJECTORY_FOLLOWING: self._conversation,
            prompts.TRAJECTORY_CONSISTENCY: self._consistency,
        }
        answer = next((answer for question, answer in known.items() if question in text), None)
        if answer is None:
            raise _Unclear("this is no question that I know")
        try:
            asked = [asked_by(words) for words in re.findall(rf'^{prompts.INSTRUCTION}"(.*)"$', text, re.MULTILINE)]
        except ValueError as error:
            raise _Unclear(str(error)) from error
        images = [part for part in parts if not isinstance(part, str)]
        side = self.level.size
        if len(images) < 2 or not asked:
            raise _Unclear("two images and an instruction are needed")
        if any(image.size != (side, side) for image in images):
            raise _Unclear(f"the images of level {self.level.name} are {side} px a side")
        return answer(asked, images)

    def _following(self, asked: Sequence[Asked], images: Sequence[Image]) -> _Verdict:
        """Whether any of the things that the instruction can mean was done."""
        before = self._read(images[0])
        sessions = [Session("seen", "seen", (_turn(edit),), before) for edit in _meanings(asked[-1], before)]
        if not sessions:
            return self._without(asked[-1], images[-1])
        scores = _FOLLOWING.score([_view(session, 1, images[0], images[-1]) for session in sessions])
        best = max(scores, key=lambda score: score.value or 0.0)
        if best.value is None:
            raise _Unclear(best.reason)
        return _Verdict(best.value, best.reason, graded=False)

    def _without(self, asked: Asked, after: Image) -> _Verdict:
        """Of an instruction about what the picture before does not show."""
        noun = asked.words["noun"]
        if asked.task_type not in ("subject_remove", "count_change"):
            return _Verdict(0.0, f"there was no {noun}", graded=False)
        seen = len(named(asked, self._read(after)))
        wanted = 0 if asked.task_type == "subject_remove" else asked.number
        return _Verdict(float(seen == wanted), f"{seen} of {noun} seen, {wanted} wanted", graded=False)

    def _consistency(self, asked: Sequence[Asked], images: Sequence[Image]) -> _Verdict:
        session = self._told(asked, images[0])
        (score,) = _CONSISTENCY.score([_view(session, len(asked), images[0], images[-1], last=True)])
        if score.value is None:
            return _Verdict(1.0, score.reason)
        return _Verdict(max(0.0, 1 - (1 - score.value) / _WORST), score.reason)

    def _loss(self, asked: Sequence[Asked], images: Sequence[Image]) -> _Verdict:
        """The share of the things that no instruction touched, the background one of them, that are seen no more."""
        session = self._told(asked, images[0])
        start, now = session.start, session.turns[-1].target
        touched = {id for turn in session.turns for id in turn.slots["touched"]}
        picture = Picture(images[-1], self.level)
        kept = [item for item in start.items if item.id not in touched]
        seen = {item: picture.item(item, now) for item in kept}
        lost = [item.noun for item, found in seen.items() if found is None or found.noun != item.noun]
        things = len(kept)
        if now.background == start.background:
            things += 1
            grounds = picture.backgrounds(now, start)
            lost += [now.background] * (2 * grounds.count(now.background) < len(grounds))
        return _Verdict(len(lost) / max(things, 1), f"lost: {', '.join(lost) or 'nothing'}")

    def _corruption(self, asked: Sequence[Asked], images: Sequence[Image]) -> _Verdict:
        """How far the picture is from a clean one of the same things."""
        clean = renderer(self.level).pixels(self._read(images[-1]))
        error = np.abs(np.asarray(images[-1], np.float32) - clean).mean() / 255
        return _Verdict(min(1.0, float(error) / _WORST), f"{error:.3f} from a clean picture")

    def _conversation(self, asked: Sequence[Asked], images: Sequence[Image]) -> _Verdict:
        """The share of the instructions that were carried out at their turn and last."""
        if len(images) != len(asked) + 1:
            raise _Unclear("an image after every instruction is needed")
        session, last = self._told(asked, images[0]), len(asked)
        views = [_view(session, turn, images[turn - 1], images[turn]) for turn in range(1, last + 1)]
        views += [_view(session, last, images[0], images[-1], turn, last=True) for turn in range(1, last + 1)]
        values = [score.value for score in _FOLLOWING.score(views)]
        done = [value == 1 and lasts in (1, None) for value, lasts in zip(values[:last], values[last:], strict=True)]
        undone = [asked.instruction for asked, good in zip(asked, done, strict=True) if not good]
        return _Verdict(sum(done) / last, f"not done or undone: {'; '.join(undone) or 'nothing'}")

    def _read(self, image: Image) -> Scene:
        return _scene(image.tobytes(), self.level.name)

    def _told(self, asked: Sequence[Asked], first: Image) -> Session:
        """The session that the instructions are, from the first picture on."""
        start = now = self._read(first)
        turns, next_id = [], self.level.places
        for one in asked:
            meanings = _meanings(one, now, next_id)
            edit = meanings[0] if meanings else Edit(one.task_type, one.instruction, {}, (), now)
            turns.append(_turn(edit))
            now, next_id = edit.after, next_id + self.level.places
        return Session("seen", "seen", tuple(turns), start)

    def _planted(self, verdict: _Verdict, question: Question) -> float:
        share = verdict.share
        if verdict.graded:
            share = min(1.0, max(0.0, share + self.bias))
        elif share == (self.bias < 0) and self._chance(question, "bias") < abs(self.bias):
            share = 1 - share
        return 1 - share if self._chance(question, f"noise of vote {question.vote}") < self.noise else share

    def _chance(self, question: Question, of: str) -> float:
        """A number from 0 to 1 that the question determines."""
        digest = hashlib.blake2b(f"{self.seed} {of}\n".encode(), digest_size=8)
        for part in question.parts:
            digest.update(part.encode() if isinstance(part, str) else part.tobytes())
        return int.from_bytes(digest.digest(), "big") / 2**64


def _contract(text: str) -> OneToken | Reasoned | None:
    """The contract that a prompt ends with."""
    known: list[OneToken | Reasoned] = [Reasoned(scale) for scale in SCALES.values()]
    known += [
        OneToken(scale) for scale in SCALES.values() if all(len(word) == 1 or word.isalpha() for word in scale.values)
    ]
    return next((contract for contract in known if contract.format in text), None)


def _meanings(asked: Asked, before: Scene, next_id: int | None = None) -> list[Edit]:
    """The edits that an instruction can mean: several where a picture shows its noun several times, perhaps none."""
    about: Sequence[Item | None] = [None]
    if asked.task_type not in ("subject_add", "background_change"):
        about = named(asked, before)[: 1 if asked.task_type == "count_change" else None]
    try:
        return [carried_out(asked, before, item, next_id) for item in about]
    except ValueError:  # there is no room for so many: all that is left is to count them
        return []


def _turn(edit: Edit) -> Turn:
    slots = {**edit.slots, "touched": list(edit.touched)}
    return Turn(edit.instruction, edit.task_type, slots, edit.after)


def _view(
    session: Session, turn: int, previous: Image, current: Image, judged: int | None = None, last: bool = False
) -> TurnView:
    """What the exact scorers are shown; ``last``: against the first image, not the one before."""
    protocol = "single-shot" if last else "teacher-forced"
    return TurnView(session, turn, judged or turn, protocol, source=previous, previous=previous, current=current)


@lru_cache(maxsize=1024)
def _scene(pixels: bytes, level: str) -> Scene:
    """The scene of a picture; the chains of a group share theirs."""
    from PIL import Image

    side = LEVELS[level].size
    return read_picture(Image.frombytes("RGB", (side, side), pixels), LEVELS[level])
