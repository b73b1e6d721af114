"""What the scorers that ask a judge share: a question a turn, or several, by a scoring mode, on a scale, with votes.

The scale's ends are 0 and 1 of a score, so that thresholds and rewards read alike on every scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from mteval.errors import UsageError
from mteval.judges.asking import Asked, Spec, opened
from mteval.judges.contract import Mode, OneToken, Reading, contract
from mteval.judges.prompts import Parts
from mteval.scorers.base import Measure, Score, ScorerInfo, TurnView

_VOTING_TEMPERATURE = 0.7


class VlmScorer(ABC):
    """A judge rates a turn.

    A scorer says what it asks; more than one question makes ``parts`` of the score, and ``combined`` its value.

    Args:
        judge: who is asked (:func:`mteval.judges.asking.opened`); ``--judge`` names it for every scorer of a run.
        mode: ``non-thinking`` (one token, the expectation over its probabilities) or ``thinking`` (reasoning, then a
            score).
        scale: ``0-9``, ``0-5``, ``0-2`` or ``yes-no``, and ``0-10`` when thinking; None = the scorer's own.
        votes: how often each question is asked; the mean counts, and only where every vote could be read.
        temperature: of the judge; None = 0, or 0.7 with several votes.
        threshold: of the score in [0, 1] from which on it is a success; None = the scorer's own, 0.5 for yes-no.
        tokens: most of a reply when thinking.

    Raises:
        UsageError: no judge, or one that cannot be asked in this way.
    """

    id: ClassVar[str]
    measures: ClassVar[Measure]
    scope: ClassVar[Literal["turn", "session"]] = "turn"
    scales: ClassVar[Mapping[Mode, str]] = {"non-thinking": "0-9", "thinking": "0-10"}
    least: ClassVar[float | None] = None
    scoring_version: ClassVar[int] = 1

    def __init__(
        self,
        judge: Spec | None = None,
        mode: Mode = "non-thinking",
        scale: str | None = None,
        votes: int = 1,
        temperature: float | None = None,
        threshold: float | None = None,
        tokens: int = 1024,
    ) -> None:
        scale = scale or self.scales.get(mode, "0-9")
        self.contract = contract(mode, scale, tokens)
        self.asker = opened(judge, self.id)
        self.votes = votes
        self.temperature = temperature if temperature is not None else _VOTING_TEMPERATURE * (votes > 1)
        own = 0.5 if scale == "yes-no" and self.least is not None else self.least
        self.threshold = own if threshold is None else threshold
        if votes < 1:
            raise UsageError(f"votes must be 1 or more, not {votes}")
        if isinstance(self.contract, OneToken):
            if not self.asker.info.gives_probabilities:
                name = self.asker.info.id
                raise UsageError(f"mode=non-thinking needs probabilities, which {name} does not tell: mode=thinking")
            if votes > 1:
                raise UsageError("votes are for mode=thinking: the probabilities of one token are the same every time")

    @property
    def info(self) -> ScorerInfo:
        return ScorerInfo(
            self.id,
            self.measures,
            low=0,
            high=1,
            success_threshold=self.threshold,
            scope=self.scope,
            scoring_version=self.scoring_version,
            concurrency=self.asker.info.concurrency,
            revision=self.asker.info.revision,
        )

    @abstractmethod
    def questions(self, view: TurnView) -> Mapping[str, Parts]:
        """What the judge is shown and asked: name of the question -> its parts."""

    def combined(self, values: Mapping[str, float]) -> float:
        """The score of the answers, shares of the scale by name."""
        (value,) = values.values()
        return value

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return self.scored_again(batch, 0)

    def scored_again(self, batch: Sequence[TurnView], time: int) -> list[Score]:
        """Scores by votes of their own; ``time`` 0 are those of :meth:`score`."""
        votes = range(time * self.votes, (time + 1) * self.votes)
        questions = [self.questions(view) for view in batch]
        asked = [
            Asked(parts, self.contract, vote, self.temperature)
            for of_view in questions
            for parts in of_view.values()
            for vote in votes
        ]
        readings = iter(self.asker.ask(asked))
        return [self._score({name: [next(readings) for _ in votes] for name in of_view}) for of_view in questions]

    def _score(self, readings: Mapping[str, Sequence[Reading]]) -> Score:
        evidence: dict[str, Any] = {"scale": self.contract.scale.name}
        values: dict[str, float] = {}
        reasons = []
        for name, votes in readings.items():
            shares = [self.contract.scale.share(vote.value) for vote in votes if vote.value is not None]
            told: dict[str, Any] = {"replies": [vote.text for vote in votes], **votes[0].evidence}
            if len(votes) > 1:
                told["votes"] = [round(share, 6) for share in shares]
            evidence = {**evidence, **told} if len(readings) == 1 else {**evidence, name: told}
            failed = next((vote for vote in votes if vote.state != "ok"), None)
            if failed:
                return Score(failed.state, reason=failed.reason, evidence=evidence)
            values[name] = sum(shares) / len(shares)
            reasons.append(f"{name}: {votes[0].reason}" if len(readings) > 1 else votes[0].reason)
        parts = values if len(values) > 1 else {}
        return Score("ok", self.combined(values), parts, " ".join(reasons), evidence)
