"""Instruction following, rated by a judge."""

from __future__ import annotations

from collections.abc import Mapping

from mteval.judges.prompts import FOLLOWING, Parts, one_edit
from mteval.scorers.base import TurnView
from mteval.scorers.vlm import VlmScorer


class VlmFollowing(VlmScorer):
    """Is the judged instruction carried out, from the image that the editor was shown to the one that it made?

    Args: as for :class:`~mteval.scorers.vlm.VlmScorer`; a success from 0.7 on.
    """

    id = "vlm-if"
    measures = "instruction_following"
    least = 0.7

    def questions(self, view: TurnView) -> Mapping[str, Parts]:
        return {"following": one_edit(view, FOLLOWING)}
