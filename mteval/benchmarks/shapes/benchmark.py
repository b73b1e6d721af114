"""ShapesEdit as a benchmark: procedural sessions of any length with exact reference states."""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from mteval.benchmarks.base import BenchmarkInfo
from mteval.benchmarks.shapes.edits import EDITS
from mteval.benchmarks.shapes.generate import SIZES, make_session
from mteval.benchmarks.shapes.render import renderer
from mteval.benchmarks.shapes.world import LEVELS
from mteval.errors import UsageError
from mteval.registry import nearest
from mteval.sessions import Session

# Raise it whenever a session or a pixel changes.
VERSION = "1"


class ShapesEdit:
    """ShapesEdit at one level and split.

    Args:
        level: ``easy``, ``standard`` or ``hard``; see world.py for their knobs.
        split: ``train``, ``validation`` or ``test``.
        seed: another seed draws other sessions of the same split.
    """

    def __init__(self, level: str = "standard", split: str = "test", seed: int = 0) -> None:
        for word, value, choices in (("level", level, list(LEVELS)), ("split", split, list(SIZES))):
            if value not in choices:
                raise UsageError(f"benchmark 'shapes' has no {word} '{value}': {nearest(value, choices)}")
        self.level, self.split, self.seed = LEVELS[level], split, seed
        self._renderer = renderer(self.level)

    @property
    def info(self) -> BenchmarkInfo:
        return BenchmarkInfo(
            id="shapes",
            variant=f"{self.level.name}-{self.split}" + (f"-seed{self.seed}" if self.seed else ""),
            version=VERSION,
            task_types=tuple(EDITS),
            scorers=("shapes-if", "shapes-cc", "reference-psnr"),
            has_references=True,
            size=SIZES[self.split],
            default_turns=3,
            default_limit=200,
        )

    def sessions(self, turns: int, limit: int | None = None) -> Sequence[Session]:
        count = SIZES[self.split] if limit is None else min(limit, SIZES[self.split])
        return [make_session(self.level, self.split, self.seed, index, turns) for index in range(count)]

    def source(self, session: Session) -> Image:
        return self._renderer.image(session.start)

    def reference(self, session: Session, turn: int) -> Image:
        return self._renderer.image(session.start if turn == 0 else session.turns[turn - 1].target)
