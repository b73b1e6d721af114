"""Distance to the reference image: the drift curve that no-reference quality models cannot draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.metrics import peak_signal_noise_ratio

from mteval.scorers.base import Score, ScorerInfo, TurnView

# An exact copy has no finite PSNR; it counts as this many dB (an 8-bit image that is off by one level in one value has
# more than 90 at the sizes used here).
CEILING = 100.0


class ReferencePSNR:
    """PSNR in dB of I_t against the reference after turn t, at most CEILING."""

    @property
    def info(self) -> ScorerInfo:
        return ScorerInfo("reference-psnr", "reference_psnr", low=0, high=CEILING)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        return [_judge(view) for view in batch]


def _judge(view: TurnView) -> Score:
    if view.reference is None:
        return Score("not_applicable", reason="the benchmark has no reference image for this turn")
    if view.reference.size != view.current.size:
        return Score("infra_error", reason=f"the image is {view.current.size}, its reference {view.reference.size}")
    reference, current = np.asarray(view.reference), np.asarray(view.current)
    if np.array_equal(reference, current):
        return Score("ok", CEILING, reason="equal to the reference")
    value = min(CEILING, float(peak_signal_noise_ratio(reference, current, data_range=255)))
    return Score("ok", value, reason=f"{value:.1f} dB from the reference")
