"""EdiVal-CC: is everything that no turn so far was to change still as in the first image, by DINOv3's features?

``object``: the objects that no turn touched, cut out of I_0 and I_t at the places where the detector finds them in I_0.
``background``: everything outside the boxes of all objects that ever were, in I_0 or I_t. ``object_l1`` and
``background_l1`` are the same in pixels; no metric uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Resampling

from mteval.errors import UsageError
from mteval.perception import opened
from mteval.scorers.base import Score, ScorerInfo, TurnView
from mteval.scorers.edival.likeness import (
    background_likeness,
    grid_of,
    masked_likeness,
    object_likeness,
    outside,
    pixel_likeness,
    pooled,
    with_registers,
)
from mteval.scorers.edival.published import SIDE
from mteval.scorers.edival.sight import Sight, check_mode, cut, told

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.perception.base import Box, Detector, Encoder, Features, Floats

THRESHOLD = 0.35
"""Of the detector, for objects and for what is masked out of the background (EdiVal)."""


class EdivalContentConsistency:
    """The value is the mean of the ``object`` and ``background`` parts that there are.

    In mode ``published``, as in EdiVal's public code (arXiv 2509.13399, commit a7bbdec): images of 512 x 512; nothing
    is measured once the background was to change; register tokens count as patches, so that the grid of the background
    is 10 x 20 and its cells are not where the tokens are from; where objects are to be kept and none is detected, or
    no background is left, the part is 0.

    In mode ``fixed``: images as they are, registers left out, tokens where they are from; objects that outlast a change
    of the background are measured; what cannot be measured is no part, and without a part there is nothing to judge.

    Args:
        detector: what finds objects. encoder: what makes features. mode: ``fixed`` or ``published``.

    Raises:
        UsageError: no weights, or an unknown mode.
    """

    def __init__(
        self,
        detector: opened.Spec | Detector = "grounding-dino",
        encoder: opened.Spec | Encoder = "dinov3",
        mode: str = "fixed",
    ) -> None:
        check_mode("edival-cc", mode)
        self.published = mode == "published"
        self.detector = opened.detector(detector)
        self.encoder = opened.encoder(encoder)

    @property
    def info(self) -> ScorerInfo:
        revision = f"{self.detector.revision} {self.encoder.revision}"
        return ScorerInfo("edival-cc", "content_consistency", low=0, high=1, revision=revision)

    def score(self, batch: Sequence[TurnView]) -> list[Score]:
        """Raises:
        UsageError: the benchmark is not of EdiVal's schema.
        """
        sight = Sight(self.detector, SIDE if self.published else None)
        return [self._judge(view, sight) for view in batch]

    def _judge(self, view: TurnView, sight: Sight) -> Score:
        slots = view.session.turns[view.turn - 1].slots
        if "unchanged_objects" not in slots:
            raise UsageError(
                "edival-cc judges benchmarks of EdiVal's schema, whose slots tell the objects that stay, and this one "
                "has none: score it with vlm-cc, or choose another benchmark"
            )
        background = bool(slots["bg_consistency"])
        if self.published and not background:
            return Score("not_applicable", reason="the background was to change")
        first, now = sight.shown(view.source), sight.shown(view.current)
        if now.size != first.size:
            now = now.resize(first.size, Resampling.LANCZOS)
        kept = sight.look(first, tuple(slots["unchanged_objects"]), THRESHOLD) if slots["unchanged_objects"] else []
        seen = [sight.look(image, tuple(slots["all_objects"]), THRESHOLD) for image in (first, now) if background]
        masked = [one.box for found in seen for one in found]
        pairs = [(cut(first, one.box), cut(now, one.box)) for one in kept]
        pairs += [(first, now)] * background
        features = self.encoder.encode([image for pair in pairs for image in pair])
        parts: dict[str, float] = {}
        if kept:
            parts |= self._objects(pairs[: len(kept)], features[: 2 * len(kept)])
        elif slots["unchanged_objects"] and self.published:
            parts |= {"object": 0.0, "object_l1": 0.0}
        if background:
            parts |= self._background(first, now, features[-2], features[-1], masked)
        evidence = {"mode": "published" if self.published else "fixed", "objects": told(kept), "masked": len(masked)}
        whole = [parts[name] for name in ("object", "background") if name in parts]
        if not whole:
            return Score("not_applicable", parts=parts, reason="nothing that was to stay is seen", evidence=evidence)
        reason = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
        return Score("ok", float(np.mean(whole)), parts, f"{reason} ({len(kept)} objects)", evidence)

    def _objects(self, crops: Sequence[tuple[Image, Image]], features: Sequence[Features]) -> Mapping[str, float]:
        encoded = zip(features[0::2], features[1::2], strict=True)
        alike = [object_likeness(before, after, registers=self.published) for before, after in encoded]
        in_pixels = [pixel_likeness(_pixels(before), _pixels(after)) for before, after in crops]
        return {"object": float(np.mean(alike)), "object_l1": float(np.mean(in_pixels))}

    def _background(
        self, first: Image, now: Image, before: Features, after: Features, masked: Sequence[Box]
    ) -> Mapping[str, float]:
        mask = outside(masked, first.size)
        rows, columns, _ = before.patches.shape
        if self.published:
            tokens = with_registers(before), with_registers(after)
            rows, columns = grid_of(len(tokens[0]), aspect=rows / columns)
        else:
            tokens = before.patches.reshape(rows * columns, -1), after.patches.reshape(rows * columns, -1)
        alike = background_likeness(tokens[0], tokens[1], pooled(mask, rows, columns).ravel())
        if alike is None and self.published:
            alike = 0.0
        found = {"background": alike, "background_l1": masked_likeness(_pixels(first), _pixels(now), mask)}
        return {name: value for name, value in found.items() if value is not None}


def _pixels(image: Image) -> Floats:
    """[height, width, 3] in [0, 1]."""
    return np.asarray(image, np.float32) / np.float32(255)
