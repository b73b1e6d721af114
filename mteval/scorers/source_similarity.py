"""How far I_t is from I_0 as a whole: a drift curve in which the edits themselves count as changes.

What should not have changed is measured by content consistency; this tells how fast pictures wander off, which
no-reference quality models cannot tell (published chains of 100 edits). The part ``source`` is I_0 against itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mteval.perception.similarity import Lpips, ssim
from mteval.scorers.base import Score, ScorerInfo, TurnView


class SourceSSIM:
    """Structural similarity of I_0 and I_t, 1 for equal images (:func:`mteval.perception.similarity.ssim`)."""

    @property
    def info(self) -> ScorerInfo:
        return ScorerInfo("ssim", "visual_quality", low=-1, high=1)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return [self._score(view) for view in batch]

    def _score(self, view: TurnView) -> Score:
        if view.source.size != view.current.size:
            return _other_size(view)
        value = ssim(view.source, view.current)
        return Score("ok", value, parts={"source": 1.0}, reason=f"SSIM {value:.3f} to the source")


class SourceLPIPS:
    """Perceptual distance of I_0 and I_t, 0 for equal images (:class:`mteval.perception.similarity.Lpips`).

    Raises:
        UsageError: its library or its weights are not here.
    """

    def __init__(self, device: str = "auto") -> None:
        self._lpips = Lpips(device)

    @property
    def info(self) -> ScorerInfo:
        return ScorerInfo("lpips", "visual_quality", low=0, high=math.inf)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return [self._score(view) for view in batch]

    def _score(self, view: TurnView) -> Score:
        if view.source.size != view.current.size:
            return _other_size(view)
        value = self._lpips.distance(view.source, view.current)
        return Score("ok", value, parts={"source": 0.0}, reason=f"LPIPS {value:.3f} to the source")


def _other_size(view: TurnView) -> Score:
    return Score("infra_error", reason=f"the image is {view.current.size}, the source {view.source.size}")
