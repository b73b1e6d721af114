"""The scorers of LME-Bench for long conversations: which turns survive, and which have collapsed.

Source of the thresholds: metrics.md of the design, after LME-Bench: a turn survives with instruction following and
consistency of 7 of 10 or more each; it has collapsed where content loss and surface corruption, 0 to 2 each, are 2 or
more together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mteval.judges.contract import Mode
from mteval.judges.prompts import (
    CONSISTENCY,
    CORRUPTION,
    FOLLOWING,
    LOSS,
    Parts,
    one_edit,
    since_the_start,
)
from mteval.scorers.base import TurnView
from mteval.scorers.vlm import VlmScorer


class LmeSurvival(VlmScorer):
    """The lower of instruction following and consistency; the turn survives from 0.7 on.

    Args: as for :class:`~mteval.scorers.vlm.VlmScorer`.
    """

    id = "lme-survival"
    measures = "survival"
    least = 0.7

    def questions(self, view: TurnView) -> Mapping[str, Parts]:
        return {"following": one_edit(view, FOLLOWING), "consistency": since_the_start(view, CONSISTENCY)}

    def combined(self, values: Mapping[str, float]) -> float:
        return min(values.values())


class LmeCollapse(VlmScorer):
    """Content loss and surface corruption together, their sum of 0 to 4 as a share; the turn has collapsed from 0.5 on.

    Args: as for :class:`~mteval.scorers.vlm.VlmScorer`.
    """

    id = "lme-collapse"
    measures = "collapse"
    scales: ClassVar[Mapping[Mode, str]] = {"non-thinking": "0-2", "thinking": "0-2"}
    least = 0.5

    def questions(self, view: TurnView) -> Mapping[str, Parts]:
        return {"loss": since_the_start(view, LOSS), "corruption": since_the_start(view, CORRUPTION)}

    def combined(self, values: Mapping[str, float]) -> float:
        return sum(values.values()) / len(values)
