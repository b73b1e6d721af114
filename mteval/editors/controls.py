"""Control editors: what every report can show beside a model, and what the metrics are held against.

==================== ================================================= ===========================================
control              makes                                             must give
==================== ================================================= ===========================================
:class:`Identity`    its input                                         IF near 0, CC = 1
:class:`Oracle`      the reference state                               S_t = M_t = 1, CC = 1, EB = 0
:class:`Synthetic`   the edit with a set probability, and a set drift  the set values, within their intervals
==================== ================================================= ===========================================

They are asked like any editor; the last two get the benchmark through :meth:`bind`, never in a request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from mteval.editors.base import About, BadOutput, EditorInfo, EditRequest, EditResult
from mteval.errors import UsageError

if TYPE_CHECKING:
    from mteval.benchmarks.base import Benchmark
    from mteval.sessions import Session

Pixels = npt.NDArray[np.int16]

_BATCH = 32
_KEPT = 1024  # reference images in memory


class _Control:
    """What the controls share: any size, any text."""

    info: EditorInfo

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def accepts(self, instruction: str) -> bool:
        return True


class Identity(_Control):
    """Returns its input."""

    about = About("gives back its input", "control")

    def __init__(self) -> None:
        self.info = EditorInfo(id="identity", revision="1", batch_size=_BATCH)

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [EditResult(image=request.image) for request in requests]


class _Bound(_Control):
    """A control that looks its answer up in the benchmark."""

    def bind(self, benchmark: Benchmark, sessions: Sequence[Session]) -> None:
        """Take the reference states of these sessions.

        Raises:
            UsageError: the benchmark has no reference states.
        """
        if not benchmark.info.has_references:
            raise UsageError(f"editor '{self.info.id}' needs reference states, and {benchmark.info.id} has none")
        self._sessions = {session.id: session for session in sessions}
        self._image = lru_cache(_KEPT)(lambda name, turn: benchmark.reference(self._sessions[name], turn))

    def _reference(self, session: str, turn: int) -> Image.Image:
        image: Image.Image | None = self._image(session, turn)
        if image is None:
            raise BadOutput(f"session {session} has no reference state after turn {turn}")
        return image

    def _pixels(self, session: str, turn: int) -> Pixels:
        return _array(self._reference(session, turn))


class Oracle(_Bound):
    """Returns the reference state: what a perfect editor would make."""

    about = About("gives back the reference state: a perfect editor", "control")

    def __init__(self) -> None:
        self.info = EditorInfo(id="oracle", revision="1", batch_size=_BATCH)

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [EditResult(image=self._reference(request.session, request.turn)) for request in requests]


class Synthetic(_Bound):
    """Succeeds with a set probability and drifts by a set amount, so that every metric has a known true value.

    An edit succeeds with probability ``success`` from a clean input (the exact reference state, or turn 1), with
    ``success - drift_penalty`` from an input that has drifted though every edit so far succeeded, and with
    ``success - cascade_penalty`` after an earlier failure. A success writes the next reference state into the pixels
    that the turn changes, a failure leaves the last reference state there. Every other pixel moves by ``drift`` grey
    levels a turn, up where the source is dark (< 128) and down where it is bright. The draw depends on session, turn
    and seed and not on the protocol.

    With s, d, c for ``success`` and the two penalties, and drift > 0 (without drift no input is drifted, so d never
    applies)::

        teacher-forced   M_t = s
        free-running     P_t = s (s - d)^(t-2), P_1 = 1      the chance that turns 1..t-1 all succeeded
                         conditional success at t >= 2 = s - d
                         S_t = P_{t+1}
                         M_t = P_t (s - d) + (1 - P_t) (s - c) at t >= 2
        exposure bias    drift_t = P_t d, cascade_t = (1 - P_t) c at t >= 2
        consistency      CC_t = 1 - t drift / 255 free-running, 1 - drift / 255 teacher-forced and single-shot

    Args:
        success: s in [0, 1]. drift: grey levels a turn, whole, 0 to 12. drift_penalty: d. cascade_penalty: c; both in
            [0, s].
    """

    about = About("succeeds and drifts by set amounts, so that every metric has a known true value", "control")

    def __init__(
        self, success: float = 0.9, drift: int = 0, drift_penalty: float = 0.0, cascade_penalty: float = 0.0
    ) -> None:
        if not 0 <= success <= 1:
            raise UsageError(f"editor 'synthetic': success is {success}, not in [0, 1]")
        if drift not in range(13):
            raise UsageError(f"editor 'synthetic': drift is {drift}, not a whole number of grey levels from 0 to 12")
        for name, penalty in (("drift_penalty", drift_penalty), ("cascade_penalty", cascade_penalty)):
            if not 0 <= penalty <= success:
                raise UsageError(f"editor 'synthetic': {name} is {penalty}, not in [0, success]")
        self.success, self.drift = success, drift
        self.drift_penalty, self.cascade_penalty = drift_penalty, cascade_penalty
        # An editor given as an object has no arguments in the run's identity: its revision tells its settings.
        settings = f"{success:g} {drift} {drift_penalty:g} {cascade_penalty:g}"
        self.info = EditorInfo(id="synthetic", revision=f"1 ({settings})", batch_size=_BATCH)

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [EditResult(image=self._edit(request)) for request in requests]

    def _edit(self, request: EditRequest) -> Image.Image:
        session, turn = self._sessions[request.session], request.turn
        # Single-shot asks for all turns at once: it starts from the source and changes what any of them changes.
        before = turn - 1 if request.instruction == session.turns[turn - 1].instruction else 0
        last, target, shown = self._pixels(session.id, before), self._pixels(session.id, turn), _array(request.image)
        changed = (last != target).any(axis=2, keepdims=True)
        done = _uniform(session.id, turn, request.seed) < self._chance(request, is_clean=np.array_equal(shown, last))
        towards = np.where(self._pixels(session.id, 0) < 128, self.drift, -self.drift)
        drifted = np.clip(shown + towards, 0, 255)
        return Image.fromarray(np.where(changed, target if done else last, drifted).astype(np.uint8))

    def _chance(self, request: EditRequest, is_clean: bool) -> float:
        if is_clean:
            return self.success
        earlier = (self._succeeded(request, turn, image) for turn, (_, image) in enumerate(request.history, start=1))
        return self.success - (self.drift_penalty if all(earlier) else self.cascade_penalty)

    def _succeeded(self, request: EditRequest, turn: int, image: Image.Image) -> bool:
        """Whether the image of an earlier turn shows its edit: a success left the exact reference state where it
        changed."""
        last, target = self._pixels(request.session, turn - 1), self._pixels(request.session, turn)
        changed = (last != target).any(axis=2)
        return np.array_equal(_array(image)[changed], target[changed])


def _array(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.int16)


def _uniform(session: str, turn: int, seed: int) -> float:
    """A number in [0, 1) that is the same on every machine."""
    digest = hashlib.blake2b(f"synthetic\0{session}\0{turn}\0{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
