"""EdiVal-VQ: a preference model's score of I_t beside that of I_0; Delta_t = |mean VQ_t - mean VQ_0| is of metrics.py.

The model (HPSv3 in the published tables) runs behind ``mteval serve`` in an environment of its own, because what it
needs does not fit beside mteval; docs/perception.md has the wrapper. It is shown one image at a time with an empty
instruction, as the published scores were made: quality without a reference cannot depend on what was asked for, and I_0
has no instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL.Image import Resampling

from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.scorers.http import HttpScorer
from mteval.sessions import Session, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = ("fixed", "published")
_PUBLISHED_SIZE = (512, 512)


class EdivalVQ:
    """The value is that of I_t, the part ``source`` that of I_0; both in the model's own unit.

    Args:
        url, scorer, timeout: see :class:`mteval.scorers.http.HttpScorer`.
        mode: ``fixed`` shows every image as it is; ``published`` at 512 x 512 (Lanczos), whatever its shape.

    Raises:
        UsageError: another mode; when it is first asked, no server.
    """

    def __init__(self, url: str, scorer: str | None = None, timeout: float = 120, mode: str = "fixed") -> None:
        if mode not in _MODES:
            raise UsageError(f"unknown mode '{mode}': {nearest(mode, list(_MODES))}")
        self._model, self._mode = HttpScorer(url, scorer, timeout), mode

    @property
    def info(self) -> ScorerInfo:
        """Range and scoring version are those of the served scorer.

        Raises:
            UsageError: the server does not answer, or does not serve the scorer.
        """
        served = self._model.info
        return ScorerInfo(
            "edival-vq", "visual_quality", served.low, served.high, scoring_version=served.scoring_version
        )

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        """Every I_0 of the batch is asked about once."""
        sources = {id(view.source): view.source for view in batch}
        asked = [self._alone(image) for image in (*(view.current for view in batch), *sources.values())]
        told = self._model.score(asked)
        before = dict(zip(sources, told[len(batch) :], strict=True))
        return [_beside(score, before[id(view.source)]) for view, score in zip(batch, told, strict=False)]

    def _alone(self, image: Image) -> TurnView:
        shown = image.resize(_PUBLISHED_SIZE, Resampling.LANCZOS) if self._mode == "published" else image
        return TurnView(_NOTHING_ASKED, 1, 1, "free-running", source=shown, previous=shown, current=shown)


_NOTHING_ASKED = Session("image", "image", (Turn("", ""),))


def _beside(score: Score, before: Score) -> Score:
    """The score of I_t with that of I_0; without either there is no difference to measure."""
    if score.value is None:
        return score
    if before.value is None:
        return Score(before.state, reason=f"of the source image: {before.reason}")
    reason = f"{score.value:.4g}, {before.value:.4g} at the start"
    return Score("ok", score.value, parts={"source": before.value}, reason=reason, evidence=score.evidence)
