"""EdiVal-IF: is the edit done, by a detector and a judge, one rule for each of nine types of edit.

The rules are in :mod:`mteval.scorers.edival.published` and :mod:`mteval.scorers.edival.fixed`; here they get what they
ask for. The judge's questions of a batch are asked together, round by round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mteval.errors import UsageError
from mteval.judges import asking
from mteval.judges.asking import Asked
from mteval.judges.contract import FreeText, Mode, OneToken, OutputContract, Reading, contract
from mteval.perception import opened
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.scorers.edival import fixed, prompts, published
from mteval.scorers.edival.outlasting import outlasting, overtaken
from mteval.scorers.edival.rules import NEEDED, Ask, Letters, Look, Place, Request, Rule, Steps, Verdict
from mteval.scorers.edival.sight import Sight, check_mode, cut, read, told

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.perception.base import Detector, Reader

_RULES: Mapping[str, Mapping[str, Rule]] = {"fixed": fixed.RULES, "published": published.RULES}


class EdivalInstructionFollowing:
    """1 if the rule of the edit's type holds, else 0.

    The image before is what the editor was shown: its own last one free-running, the first one in a single shot.

    Args:
        detector: what finds objects. Its thresholds are EdiVal's, made for Grounding DINO.
        judge: who is asked (:func:`mteval.judges.asking.opened`); EdiVal's published numbers are Qwen2-VL-7B's.
        reader: what reads text instead of the judge, ``rapidocr`` for example; in mode fixed only.
        mode: ``fixed``; or ``published``: the rules of EdiVal's public code with their quirks, on images of 512 x 512.
        judging: how the judge says yes or no in mode fixed, ``thinking`` or ``non-thinking`` (one token).

    Raises:
        UsageError: no judge, no weights, or arguments that do not go together.
    """

    def __init__(
        self,
        detector: opened.Spec | Detector = "grounding-dino",
        judge: asking.Spec | None = None,
        reader: opened.Spec | Reader | None = None,
        mode: str = "fixed",
        judging: Mode = "thinking",
    ) -> None:
        check_mode("edival-if", mode)
        if mode == "published" and reader is not None:
            raise UsageError("edival-if reads text with its judge in mode=published: leave out reader=, or mode=fixed")
        self.mode = mode
        self.yes_or_no: OutputContract = contract(judging, "yes-no")
        self.asker = asking.opened(judge, "edival-if")
        if mode == "fixed" and isinstance(self.yes_or_no, OneToken) and not self.asker.info.gives_probabilities:
            name = self.asker.info.id
            raise UsageError(f"judging=non-thinking needs probabilities, which {name} does not tell: judging=thinking")
        self.reader = None if reader is None else opened.reader(reader)
        self.detector = opened.detector(detector)

    @property
    def info(self) -> ScorerInfo:
        return ScorerInfo(
            "edival-if",
            "instruction_following",
            low=0,
            high=1,
            success_threshold=1,
            concurrency=self.asker.info.concurrency,
            revision=" ".join(
                [self.detector.revision, self.asker.info.revision, *([self.reader.revision] if self.reader else [])]
            ),
        )

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        """Raises:
        UsageError: the benchmark is not of EdiVal's schema.
        """
        sight = Sight(self.detector, published.SIDE if self.mode == "published" else None)
        cases = [_Case(self, sight, view) for view in batch]
        while waiting := [case for case in cases if case.asked]:
            readings = self.asker.ask([case.asked for case in waiting if case.asked])
            for case, reading in zip(waiting, readings, strict=True):
                case.hear(reading)
        return [case.score for case in cases]

    def steps(self, view: TurnView) -> Steps | Verdict:
        """The rule of a turn, or why there is nothing to judge.

        Raises:
            UsageError: the benchmark is not of EdiVal's schema. ValueError: this one turn cannot be read.
        """
        turn = view.instruction
        slots: Mapping[str, Any] = {"format_instruction": turn.instruction, **turn.slots}
        lacking = [slot for slot in NEEDED.get(turn.task_type, ("type of EdiVal",)) if slot not in slots]
        if lacking and "format_instruction" in turn.slots:
            form = slots["format_instruction"]
            raise ValueError(f"'{form}' has no {', '.join(lacking)} that could be read as {turn.task_type}")
        if lacking:
            raise UsageError(
                "edival-if judges benchmarks of EdiVal's schema, whose slots name the objects of every edit; here a "
                f"{turn.task_type} has no {', '.join(lacking)}: score it with vlm-if, or choose another benchmark"
            )
        if self.mode == "fixed" and view.judged < view.turn:
            reason = overtaken(view.session, view.judged, view.turn)
            if reason:
                return Verdict(None, reason)
            slots = {**slots, **outlasting(view.session, view.judged, view.turn)}
        return _RULES[self.mode][turn.task_type](slots)


class _Case:
    """One view on its way through its rule.

    Attributes:
        asked: what its rule wants to know of the judge; None once there is a score.
    """

    def __init__(self, scorer: EdivalInstructionFollowing, sight: Sight, view: TurnView) -> None:
        self._scorer, self._sight = scorer, sight
        self._images = {
            side: sight.shown(image) for side, image in (("before", view.previous), ("after", view.current))
        }
        self._seen: list[dict[str, Any]] = []
        self._said: list[dict[str, Any]] = []
        self.asked: Asked | None = None
        steps = scorer.steps(view)
        if isinstance(steps, Verdict):
            self._end(steps)
            return
        self._steps = steps
        self._go_on(None)

    def hear(self, reading: Reading) -> None:
        """Go on with the judge's answer."""
        assert self.asked, "only who asked is answered"
        question = " ".join(part for part in self.asked.parts if isinstance(part, str))
        self._said.append({"question": question, "reply": reading.text, **reading.evidence})
        request, self.asked = self._request, None
        if reading.state != "ok":
            self.score = Score(reading.state, reason=reading.reason, evidence=self._evidence)
        elif isinstance(request, Letters):
            self._go_on("" if reading.text.strip().strip(".").upper() == prompts.NO_TEXT else reading.text)
        else:
            self._go_on(reading)

    def _go_on(self, answer: Any) -> None:
        """Give the rule what it asks for, up to its next question to the judge or its end."""
        while (request := self._next(answer)) is not None:
            if isinstance(request, Ask):
                self._ask(request, request.parts, self._scorer.yes_or_no if request.yes_or_no else FreeText())
                return
            if isinstance(request, Letters) and self._scorer.reader is None:
                self._ask(request, (request.place, prompts.READ_OR_NONE), FreeText())
                return
            answer = self._answer(request)

    def _next(self, answer: Any) -> Request | None:
        try:
            return self._steps.send(answer)
        except StopIteration as end:
            self._end(end.value)
            return None

    def _ask(self, request: Request, parts: Sequence[str | Place], how: OutputContract) -> None:
        self._request = request
        shown = tuple(part if isinstance(part, str) else self._cut(part) for part in parts)
        self.asked = Asked(shown, how)

    def _answer(self, request: Request) -> Any:
        if isinstance(request, Look):
            found = self._sight.look(self._images[request.side], (request.name,), request.threshold)
            self._seen.append({"image": request.side, "asked": request.name, "found": told(found)})
            return found
        if isinstance(request, Letters):
            assert self._scorer.reader, "without a reader the judge is asked"
            text = read(self._scorer.reader, self._cut(request.place))
            self._said.append({"image": request.place.side, "read": text})
            return text
        before, after = self._images.values()
        return before.size == after.size and before.tobytes() == after.tobytes()

    def _cut(self, place: Place) -> Image:
        return cut(self._images[place.side], place.box)

    def _end(self, verdict: Verdict) -> None:
        if verdict.holds is None:
            self.score = Score("not_applicable", reason=verdict.reason, evidence=self._evidence)
        else:
            self.score = Score("ok", float(verdict.holds), reason=verdict.reason, evidence=self._evidence)

    @property
    def _evidence(self) -> dict[str, Any]:
        return {"mode": self._scorer.mode, "detections": self._seen, "judge": self._said}
