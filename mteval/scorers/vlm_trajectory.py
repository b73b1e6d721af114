"""A whole conversation, rated by a judge at once: what mttrain's aggregation ``trajectory`` is made of.

One rating of a free-running rollout, given at its last turn; the judge is shown the first image and every turn.
"""

from __future__ import annotations

from collections.abc import Mapping

from mteval.judges.prompts import TRAJECTORY_CONSISTENCY, TRAJECTORY_FOLLOWING, Parts, conversation
from mteval.scorers.base import TurnView
from mteval.scorers.vlm import VlmScorer


class VlmTrajectoryFollowing(VlmScorer):
    """Was every instruction carried out, and does it last?

    Args: as for :class:`~mteval.scorers.vlm.VlmScorer`.
    """

    id = "vlm-trajectory-if"
    measures = "trajectory"
    scope = "session"

    def questions(self, view: TurnView) -> Mapping[str, Parts]:
        return {"following": conversation(view, TRAJECTORY_FOLLOWING)}


class VlmTrajectoryConsistency(VlmScorer):
    """Is everything that no instruction asked to change still there at the end?

    Args: as for :class:`~mteval.scorers.vlm.VlmScorer`.
    """

    id = "vlm-trajectory-cc"
    measures = "trajectory"
    scope = "session"

    def questions(self, view: TurnView) -> Mapping[str, Parts]:
        return {"consistency": conversation(view, TRAJECTORY_CONSISTENCY)}
