"""The contract of an editor: anything that turns (image, instruction, history, seed) into an image.

An editor never retries and never raises for one item of a batch: it puts the error in that item's result. An EditError
that it raises is the answer to the whole batch; after any other exception the batch is asked again one by one, and what
still raises fails that turn. Retries live in rollout.py alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from mteval.errors import BadOutput, Blocked, CallError, Fatal, RateLimited, Transient
from mteval.services import check_extra

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.benchmarks.base import Benchmark
    from mteval.sessions import Session


__all__ = [
    "About",
    "BadOutput",
    "BenchmarkBound",
    "Blocked",
    "EditError",
    "EditRequest",
    "EditResult",
    "Editor",
    "EditorInfo",
    "Fatal",
    "Kind",
    "RateLimited",
    "Transient",
]

Kind = Literal["open weights", "service", "control", "third party"]

EditError = CallError
"""Why an edit gave no image; see :mod:`mteval.errors` for the tree."""


@dataclass(frozen=True, slots=True)
class About:
    """What a person has to know of an editor to choose it; known of the class, before anything is loaded.

    Attributes:
        what: in a few words. kind: where the image is made; ``third party``, where its package does not say.
        licence: of the weights. settings: the published ones that it samples with.
        images: how many it can be shown in one turn, the one to edit among them.
        stateful: the dialogue is kept on its own side.
        needs: extras of mteval. arguments: ``key=value`` without which it does not start.
    """

    what: str
    kind: Kind
    licence: str = ""
    settings: str = ""
    images: int = 1
    stateful: bool = False
    needs: tuple[str, ...] = ()
    arguments: str = ""

    def check_needs(self, editor: str) -> None:
        """Raises:
        UsageError: a library of an extra is not there.
        """
        for extra in self.needs:
            check_extra(extra, editor)


@dataclass(frozen=True, slots=True)
class EditorInfo:
    """What a run needs to know of an editor before it starts.

    Attributes:
        id: its registry name.
        revision: what pins its behaviour (weights hash, dated model name); part of the run's identity.
        seedable: the same request gives the same image on the same machine.
        stateful: keeps the dialogue on its own side, so a request holds what is new alone.
        batch_size: the default slice, in sessions; 1 for editors without seeds or that cost money.
        max_images: how many images it can be shown in one request, the one to edit among them.
        concurrency: how many calls may run side by side; above 1 only for editors that are somewhere else.
        any_size: its images come as they are, so their size is not checked against ``output_size``.
        service: it is asked over a network, where a call may cost money: a dry run makes none.
        cost_per_image: in US dollars, as far as it is known before; 0 for local editors.
        tells_cost: each answer says what it cost, so that ``--max-cost`` can be kept without ``cost_per_image``.
        settings: what it samples with once arguments and published defaults are resolved, JSON-able by name; a run is
            not gone on with by an editor of other settings.
    """

    id: str
    revision: str
    seedable: bool = True
    stateful: bool = False
    batch_size: int = 1
    max_images: int = 1
    concurrency: int = 1
    any_size: bool = False
    service: bool = False
    cost_per_image: float = 0.0
    tells_cost: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def may_cost(self) -> bool:
        """Whether a call may cost money."""
        return self.service or self.tells_cost or self.cost_per_image > 0


@dataclass(frozen=True, slots=True)
class EditRequest:
    """One edit.

    Attributes:
        session: session id. turn: from 1.
        image: RGB, 8 bit; must not be changed in place.
        instruction: the text of this turn alone (single-shot: the joined one).
        seed: 0 <= seed < 2**63.
        history: (instruction, resulting image) of the earlier turns, oldest first; empty unless free-running.
        context: images to show before ``image``, oldest first, as the run's context policy picked them.
        dialogue: of the last turn's result; None at the start of a conversation, and unless free-running.
    """

    session: str
    turn: int
    image: Image
    instruction: str
    seed: int
    history: tuple[tuple[str, Image], ...] = ()
    context: tuple[Image, ...] = ()
    dialogue: str | None = None


@dataclass(frozen=True, slots=True)
class EditResult:
    """The image or one typed error, with latency in seconds and cost in US dollars.

    The image is stored while the editor goes on, so it must not be changed any more.
    A stateful editor also tells what the next turn of this ``dialogue`` goes on from.
    """

    image: Image | None = None
    error: EditError | None = None
    latency: float = 0.0
    cost: float = 0.0
    dialogue: str | None = None


@runtime_checkable
class Editor(Protocol):
    """See the module's docstring. ``edit`` answers in the order of its requests."""

    @property
    def info(self) -> EditorInfo: ...

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]: ...

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that an input of ``size`` will come out with: the resolution policy's own prediction."""
        ...

    def accepts(self, instruction: str) -> bool:
        """False where the instruction is longer than the editor's text limit: the turn is skipped, never cut."""
        ...


@runtime_checkable
class BenchmarkBound(Protocol):
    """The controls that look at the benchmark (oracle, synthetic) get it here with the sessions, never in a request."""

    def bind(self, benchmark: Benchmark, sessions: Sequence[Session]) -> None: ...
