"""Content consistency, rated by a judge."""

from __future__ import annotations

from collections.abc import Mapping

from mteval.judges.prompts import CONSISTENCY, Parts, since_the_start
from mteval.scorers.base import TurnView
from mteval.scorers.vlm import VlmScorer


class VlmConsistency(VlmScorer):
    """Is everything that no instruction so far asked to change still as it was in the first image?

    Args: as for :class:`~mteval.scorers.vlm.VlmScorer`.
    """

    id = "vlm-cc"
    measures = "content_consistency"

    def questions(self, view: TurnView) -> Mapping[str, Parts]:
        return {"consistency": since_the_start(view, CONSISTENCY)}
