"""Colour, sharpness and exposure of I_t beside those of I_0: the drift that no single image shows."""

from __future__ import annotations

from collections.abc import Sequence

from mteval.errors import UsageError
from mteval.perception.appearance import STATISTICS
from mteval.registry import nearest
from mteval.scorers.base import Score, ScorerInfo, TurnView


class ImageStatistics:
    """One statistic of I_t; the part ``source`` is the same of I_0.

    Its id is ``image-statistics/`` and the statistic, so that a run may hold several.

    Args:
        statistic: one of :data:`mteval.perception.appearance.STATISTICS`.

    Raises:
        UsageError: none of them.
    """

    def __init__(self, statistic: str) -> None:
        if statistic not in STATISTICS:
            raise UsageError(f"unknown statistic '{statistic}': {nearest(statistic, list(STATISTICS))}")
        self._name, self._statistic = statistic, STATISTICS[statistic]

    @property
    def info(self) -> ScorerInfo:
        statistic = self._statistic
        return ScorerInfo(f"image-statistics/{self._name}", "visual_quality", statistic.low, statistic.high)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        sources = {id(view.source): view.source for view in batch}
        before = {key: self._statistic.of(source) for key, source in sources.items()}
        return [self._score(view, before[id(view.source)]) for view in batch]

    def _score(self, view: TurnView, before: float | None) -> Score:
        value = self._statistic.of(view.current)
        parts = {} if before is None else {"source": before}
        if value is None:
            return Score("not_applicable", parts=parts, reason=f"no pixel to take the {self._statistic.about} of")
        start = "" if before is None else f", {before:.4g} at the start"
        return Score("ok", value, parts=parts, reason=f"{self._statistic.about}: {value:.4g}{start}")
