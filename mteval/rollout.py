"""The protocols: which image and which instruction an editor is shown, and what becomes of its answers.

The unit of repetition is **one batch call** = (slice, protocol, turn, repeat): the requests of all live sessions of a
fixed slice of the session list. Its images are stored first, then all its lines are appended in one write. On resume
a call whose records are all there is left alone and any other is made again whole; as its inputs are stored 8-bit
images and its seeds are fixed, it gives the same bytes. Turn 1 is the same question under every protocol: it is asked
once and recorded for all.

Edits are asked again here and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mteval.editors.base import (
    BadOutput,
    Blocked,
    EditError,
    Editor,
    EditRequest,
    EditResult,
    Fatal,
)
from mteval.errors import UsageError
from mteval.pace import Budget, Pace, Retry, in_parallel
from mteval.seeds import seed_of
from mteval.sessions import TurnKey, TurnRecord
from mteval.store import RunWriter, Timing

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.benchmarks.base import Benchmark
    from mteval.config import Context, OnMissing, SeedPolicy
    from mteval.sessions import Protocol, Session, TurnState

JOIN = ". "


def seed_for(policy: SeedPolicy, seed: int, session: str, turn: int, repeat: int) -> int:
    """The seed of one edit, 0 <= seed < 2**63; it never depends on the protocol.

    ``per-turn`` hashes (seed, session, turn, repeat), ``per-session`` leaves the turn out, ``fixed`` is ``seed``
    itself.
    """
    if policy == "fixed":
        return seed
    parts: list[int | str] = [seed, session, repeat] if policy == "per-session" else [seed, session, repeat, turn]
    return seed_of(*parts)


def joined_instruction(session: Session, turn: int) -> str:
    """c_1..c_t as one instruction, the way single-shot asks for them."""
    return JOIN.join(item.instruction for item in session.turns[:turn])


@dataclass(frozen=True, slots=True)
class Options:
    """What of a run's configuration the protocols depend on; see :class:`mteval.config.RunConfig`."""

    protocols: tuple[Protocol, ...]
    batch_size: int
    repeats: int = 1
    seed: int = 0
    seed_policy: SeedPolicy = "per-turn"
    on_missing: OnMissing = "stop"
    context: Context = "last"
    concurrency: int = 1
    max_cost: float | None = None
    retry: Retry = field(default_factory=Retry)


def total_edits(sessions: Sequence[Session], options: Options) -> int:
    """How many turns a run records, turn 1 once: the end of the progress bar."""
    return sum(options.repeats * (1 + len(options.protocols) * (len(session.turns) - 1)) for session in sessions)


def total_calls(sessions: Sequence[Session], options: Options) -> int:
    """How many batch calls a run makes when nothing goes wrong."""
    parts = _slices(sessions, options.batch_size)
    longest = [max(len(session.turns) for session in part) for part in parts]
    return sum(options.repeats * (1 + len(options.protocols) * (turns - 1)) for turns in longest)


def roll_out(
    editor: Editor,
    benchmark: Benchmark,
    sessions: Sequence[Session],
    options: Options,
    writer: RunWriter,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Run every session under every protocol and record it; what is recorded already is left alone.

    Slices do not depend on each other, and ``options.concurrency`` of them run side by side.

    Args:
        sessions: in the benchmark's order; the slices are cut from this list.
        advance: told how many turns were just recorded or found, from one thread at a time.

    Raises:
        Fatal: the editor can answer nothing more, or the money is spent; everything before this call is recorded, and
            so are the calls that ran beside it.
    """
    paid = writer.timings() if options.max_cost is not None else []
    dearest = max([editor.info.cost_per_image, *(timing.cost / timing.attempts for timing in paid)])
    budget = Budget(options.max_cost, sum(timing.cost for timing in paid), dearest)
    asker = _Asker(editor, options.retry, Pace(options.concurrency, sleep=options.retry.sleep), budget)
    told = threading.Lock()

    def play(part: Sequence[Session], stop: threading.Event) -> None:
        for count in _play(part, asker, benchmark, options, writer):
            with told:
                advance(count)
            if stop.is_set():
                return

    in_parallel(play, list(_slices(sessions, options.batch_size)), options.concurrency)


def _play(
    part: Sequence[Session], asker: _Asker, benchmark: Benchmark, options: Options, writer: RunWriter
) -> Iterator[int]:
    """One slice under every protocol, call by call; yields the turns of each call."""
    longest = max(len(session.turns) for session in part)
    for repeat in range(1, options.repeats + 1):
        yield _Slice(asker, benchmark, part, options, writer).turn(repeat, 1, options.protocols)
        for protocol in options.protocols:
            rollouts = _Slice(asker, benchmark, part, options, writer)
            for turn in range(2, longest + 1):
                yield rollouts.turn(repeat, turn, (protocol,))


def _slices(sessions: Sequence[Session], size: int) -> Iterator[Sequence[Session]]:
    return (sessions[start : start + size] for start in range(0, len(sessions), size))


@dataclass(frozen=True, slots=True)
class _Case:
    """One turn about to be asked; ``state`` and ``error`` say why where there is no request."""

    session: Session
    request: EditRequest | None
    instruction: str
    seed: int | None = None
    input: str | None = None
    state: TurnState = "not_run"
    error: str | None = None


class _Asker:
    """Asks the editor, at its pace and within the budget, and asks again what may work when asked again."""

    def __init__(self, editor: Editor, retry: Retry, pace: Pace, budget: Budget) -> None:
        self.editor, self.retry, self.pace, self.budget = editor, retry, pace, budget

    def ask(self, requests: Sequence[EditRequest]) -> list[tuple[EditResult, int]]:
        """Each result with the number of its attempts.

        Raises:
            Fatal: the editor can answer nothing more, or the money is spent.
        """
        return self.retry.ask(requests, self._call)

    def _call(self, requests: Sequence[EditRequest], waited: bool) -> list[EditResult]:
        if not requests:
            return []
        return self.pace.call(lambda: self.budget.call(len(requests), lambda: self._edit(requests)), waited)

    def _edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One call of the editor, checked; what it raises fails the turns it was raised for, asked one by one."""
        began = time.perf_counter()
        try:
            results = self.editor.edit(requests)
        except (Fatal, UsageError):  # what a person has to mend is no fault of a turn
            raise
        except EditError as error:
            results = [EditResult(error=error) for _ in requests]
        except Exception as error:
            if len(requests) > 1:
                return [self._edit([request])[0] for request in requests]
            results = [EditResult(error=_Raised(f"{type(error).__name__}: {error}"))]
        share = (time.perf_counter() - began) / len(requests)
        if len(results) != len(requests):
            mismatch = BadOutput(f"{len(results)} results for {len(requests)} requests")
            results = [EditResult(error=mismatch) for _ in requests]
        return [self._checked(request, result, share) for request, result in zip(requests, results, strict=True)]

    def _checked(self, request: EditRequest, result: EditResult, share: float) -> EditResult:
        if isinstance(result.error, Fatal):
            raise result.error
        size = None if self.editor.info.any_size else self.editor.output_size(request.image.size)
        fault = result.error or _fault(result.image, size)
        return replace(result, image=None if fault else result.image, error=fault, latency=result.latency or share)


class _Slice:
    """The rollouts of one slice of the session list under one protocol, one batch call at a time."""

    def __init__(
        self, asker: _Asker, benchmark: Benchmark, part: Sequence[Session], options: Options, writer: RunWriter
    ) -> None:
        self.asker = asker
        self.benchmark = benchmark
        self.part = part
        self.options = options
        self.writer = writer
        self.images: dict[str, Image] = {}  # decoded, by content hash

    def turn(self, repeat: int, turn: int, protocols: tuple[Protocol, ...]) -> int:
        """Make, or find, one batch call and record it for all of ``protocols``; returns the number of its turns."""
        live = [session for session in self.part if len(session.turns) >= turn]
        keys = [TurnKey(session.id, protocol, turn, repeat) for session in live for protocol in protocols]
        if not all(key in self.writer.turns and self.writer.turns[key].slice >= len(self.part) for key in keys):
            cases = [self._case(session, protocols[0], turn, repeat) for session in live]
            answers = iter(self.asker.ask([case.request for case in cases if case.request]))
            results = [next(answers) if case.request else None for case in cases]
            self._record(cases, results, turn, repeat, protocols)
        return len(live)

    def _case(self, session: Session, protocol: Protocol, turn: int, repeat: int) -> _Case:
        """What the protocol shows the editor at this turn."""
        instruction = session.turns[turn - 1].instruction
        history: tuple[tuple[str, Image], ...] = ()
        shown: Image | str | None
        if turn == 1:
            shown = self.benchmark.source(session)
        elif protocol == "single-shot":
            instruction = joined_instruction(session, turn)
            shown = self.writer.turns[TurnKey(session.id, protocol, 1, repeat)].input
        elif protocol == "teacher-forced":
            shown = self.benchmark.reference(session, turn - 1)
        else:
            shown = self._own_output(session, turn, repeat)
            history = self._history(session, turn, repeat)
        if shown is None:
            reason = "reference state" if protocol == "teacher-forced" else "image"
            error = f"there is no {reason} after turn {turn - 1}"
            return _Case(session, None, instruction, error=error)
        content = shown if isinstance(shown, str) else self._keep(shown)
        if not self.asker.editor.accepts(instruction):
            error = "the instruction is longer than the editor's text limit"
            return _Case(session, None, instruction, input=content, state="skipped", error=error)
        seed = seed_for(self.options.seed_policy, self.options.seed, session.id, turn, repeat)
        context = self._context(session, protocol, turn, repeat, content)
        dialogue = self._dialogue(session, turn, repeat) if protocol == "free-running" else None
        request = EditRequest(session.id, turn, self._image(content), instruction, seed, history, context, dialogue)
        return _Case(session, request, instruction, seed, content)

    def _own_output(self, session: Session, turn: int, repeat: int) -> str | None:
        """Content hash of what free-running goes on from: the last turn's image, or what ``on_missing`` says."""
        last = self.writer.turns[TurnKey(session.id, "free-running", turn - 1, repeat)]
        return last.image or (last.input if self.options.on_missing == "carry" else None)

    def _history(self, session: Session, turn: int, repeat: int) -> tuple[tuple[str, Image], ...]:
        earlier = [self.writer.turns[TurnKey(session.id, "free-running", t, repeat)] for t in range(1, turn)]
        return tuple((record.instruction, self._image(record.image)) for record in earlier if record.image)

    def _dialogue(self, session: Session, turn: int, repeat: int) -> str | None:
        """What the last turn that was answered left."""
        earlier = (self.writer.turns[TurnKey(session.id, "free-running", t, repeat)] for t in range(turn - 1, 0, -1))
        return next((record.dialogue for record in earlier if record.state == "ok"), None)

    def _context(self, session: Session, protocol: Protocol, turn: int, repeat: int, shown: str) -> tuple[Image, ...]:
        """The states before the one that is ``shown`` to be edited, from the source on, as the context policy says."""
        if turn == 1 or protocol == "single-shot" or self.options.context == "last":
            return ()
        contents = [self.writer.turns[TurnKey(session.id, protocol, 1, repeat)].input]
        for state in range(1, turn - 1) if self.options.context == "all" else ():
            if protocol == "free-running":
                contents.append(self.writer.turns[TurnKey(session.id, protocol, state, repeat)].image)
            elif (image := self.benchmark.reference(session, state)) is not None:
                contents.append(self._keep(image))
        return tuple(self._image(content) for content in contents if content not in (None, shown))

    def _keep(self, image: Image) -> str:
        (content,) = self.writer.put_images([image])
        self.images[content] = image
        return content

    def _image(self, content: str) -> Image:
        if content not in self.images:
            self.images[content] = self.writer.image(content)
        return self.images[content]

    def _record(
        self,
        cases: Sequence[_Case],
        answers: Sequence[tuple[EditResult, int] | None],
        turn: int,
        repeat: int,
        protocols: tuple[Protocol, ...],
    ) -> None:
        made = [answer[0].image for answer in answers if answer and answer[0].image]
        contents = self.writer.put_images(made)
        self.images.update(zip(contents, made, strict=True))
        stored = iter(contents)
        clock = datetime.now(UTC).isoformat(timespec="milliseconds")
        records: list[TurnRecord] = []
        timings: list[Timing] = []
        for case, answer in zip(cases, answers, strict=True):
            state, error, image, dialogue = case.state, case.error, None, None
            if answer:
                result, attempts = answer
                dialogue = result.dialogue
                state, error = _outcome(result)
                image = next(stored) if result.image else None
                key = TurnKey(case.session.id, protocols[0], turn, repeat)
                timings.append(Timing(*key, result.latency, result.cost, attempts, clock))
            records += [
                TurnRecord(
                    session=case.session.id,
                    source_id=case.session.source_id,
                    protocol=protocol,
                    turn=turn,
                    repeat=repeat,
                    task_type=case.session.turns[turn - 1].task_type,
                    instruction=case.instruction,
                    state=state,
                    seed=case.seed,
                    input=case.input,
                    image=image,
                    error=error,
                    slice=len(self.part),
                    dialogue=dialogue,
                )
                for protocol in protocols
            ]
        self._drop_stale_scores(records)
        self.writer.append_turns(records, timings)

    def _drop_stale_scores(self, records: Sequence[TurnRecord]) -> None:
        """A call that was made again may have given other images (a longer slice): their old scores must not stay."""
        known = self.writer.turns
        stale = {
            record.key
            for record in records
            if record.key in known
            and (known[record.key].input, known[record.key].image) != (record.input, record.image)
        }
        if stale:
            self.writer.drop_scores(lambda score: score.key[:4] in stale)


class _Raised(EditError):
    """An editor raised something that is no EditError; the message starts with its type."""


def _outcome(result: EditResult) -> tuple[TurnState, str | None]:
    error = result.error
    if error is None:
        return "ok", None
    text = str(error) if isinstance(error, _Raised) else f"{type(error).__name__}: {error}"
    return "blocked" if isinstance(error, Blocked) else "failed", text


def _fault(image: Image | None, size: tuple[int, int] | None) -> BadOutput | None:
    """Why an answer is not the image that the editor's own resolution policy predicts (None = of any size)."""
    if image is None:
        return BadOutput("no image and no error")
    if image.mode != "RGB":
        return BadOutput(f"an image of mode {image.mode}, not RGB")
    if size is not None and image.size != size:
        return BadOutput(f"an image of {image.size[0]}x{image.size[1]} pixels, not {size[0]}x{size[1]}")
    return None
