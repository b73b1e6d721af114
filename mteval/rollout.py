"""The protocols: which image and which instruction an editor is shown, and what becomes of its answers.

The unit of repetition is **one batch call** = (slice, protocol, turn, repeat): the requests of all live sessions of a
fixed slice of the session list. Its images are stored first, then all its lines are appended in one write, both while
the next call is made. On resume a call whose records are all there is left alone and any other is made again whole; as
its inputs are stored 8-bit images and its seeds are fixed, it gives the same bytes. Turn 1 is the same question under
every protocol: it is asked once and recorded for all.

Edits are asked again here and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mteval.editors.base import (
    BadOutput,
    Blocked,
    EditError,
    Editor,
    EditorInfo,
    EditRequest,
    EditResult,
    Fatal,
)
from mteval.errors import UsageError
from mteval.pace import Budget, Pace, Retry, in_parallel
from mteval.seeds import seed_of
from mteval.sessions import TurnKey, TurnRecord
from mteval.store import Kept, RunWriter, Timing

if TYPE_CHECKING:
    from PIL.Image import Image

    from mteval.benchmarks.base import Benchmark
    from mteval.config import Context, OnMissing, SeedPolicy
    from mteval.sessions import Protocol, Session, TurnState

JOIN = ". "

_Answer = tuple[EditResult, int]
"""A result, and how often it was asked for."""


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
        advance: told how many turns were just made or found, from one thread at a time.

    Raises:
        Fatal: the editor can answer nothing more, or the money is spent; everything before this call is recorded, and
            so are the calls that ran beside it.
    """
    stop = threading.Event()
    pace = Pace(options.concurrency, sleep=options.retry.sleep, stop=stop)
    asker = _Asker(editor, options.retry, pace, _budget(editor.info, options, writer, stop), stop)
    told = threading.Lock()

    def play(part: Sequence[Session], _: threading.Event) -> None:
        for count in _play(_Slice(asker, benchmark, part, options, writer, behind), part, options):
            with told:
                advance(count)
            if stop.is_set():
                return

    with closing(_Behind(writer, options.concurrency)) as behind:
        in_parallel(play, list(_slices(sessions, options.batch_size)), options.concurrency, stop)


def _budget(info: EditorInfo, options: Options, writer: RunWriter, stop: threading.Event) -> Budget:
    """What is left of the money, which earlier commands have spent of too."""
    if options.max_cost is None:
        return Budget(None, stop=stop)
    paid = writer.timings()
    dearest = max([info.cost_per_image, *(timing.cost / timing.attempts for timing in paid)])
    untold = info.tells_cost and any(record.state == "ok" for record in writer.turns.values())
    return Budget(options.max_cost, sum(timing.cost for timing in paid), dearest, info.tells_cost, untold, stop)


def _play(rollouts: _Slice, part: Sequence[Session], options: Options) -> Iterator[int]:
    """One slice under every protocol, call by call; yields the turns of each call."""
    longest = max(len(session.turns) for session in part)
    for repeat in range(1, options.repeats + 1):
        yield rollouts.turn(repeat, 1, options.protocols)
        for protocol in options.protocols:
            for turn in range(2, longest + 1):
                yield rollouts.turn(repeat, turn, (protocol,))
            rollouts.forget(protocol)


def _slices(sessions: Sequence[Session], size: int) -> Iterator[Sequence[Session]]:
    return (sessions[start : start + size] for start in range(0, len(sessions), size))


@dataclass(frozen=True, slots=True)
class _Case:
    """One turn about to be asked; ``state`` and ``error`` say why where there is no request."""

    session: Session
    request: EditRequest | None
    instruction: str
    seed: int | None = None
    input: Kept | None = None
    state: TurnState = "not_run"
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Past:
    """What later turns need of one that is settled, now or by an earlier command."""

    state: TurnState
    instruction: str
    input: Kept | None
    image: Kept | None
    dialogue: str | None


class _Asker:
    """Asks the editor, at its pace and within the budget, and asks again what may work when asked again."""

    def __init__(self, editor: Editor, retry: Retry, pace: Pace, budget: Budget, stop: threading.Event) -> None:
        self.editor, self.retry, self.pace, self.budget, self.stop = editor, retry, pace, budget, stop

    def ask(self, requests: Sequence[EditRequest], unfinished: Callable[[Sequence[_Answer]], None]) -> list[_Answer]:
        """Each result with the number of its attempts.

        Args:
            unfinished: told what was answered before something was raised.

        Raises:
            Fatal: the editor can answer nothing more, or the money is spent. Stopped: another call ended the run.
        """
        return self.retry.ask(requests, self._call, self.stop, unfinished)

    def _call(self, requests: Sequence[EditRequest], waited: bool) -> list[EditResult]:
        if not requests:
            return []
        return self.pace.call(lambda: self.budget.call(len(requests), lambda: self._edit(requests)), waited)

    def _edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One call of the editor, checked; what it raises fails the turns it was raised for, asked one by one."""
        began = time.perf_counter()
        try:
            results = self.editor.edit(requests)
        except UsageError:  # what a person has to mend is no fault of a turn
            raise
        except EditError as error:
            results = [EditResult(error=error) for _ in requests]
        except Exception as error:
            if len(requests) > 1:
                return self._one_by_one(requests)
            results = [EditResult(error=_Raised(f"{type(error).__name__}: {error}"))]
        share = (time.perf_counter() - began) / len(requests)
        if len(results) != len(requests):
            mismatch = BadOutput(f"{len(results)} results for {len(requests)} requests")
            results = [EditResult(error=mismatch) for _ in requests]
        return [self._checked(request, result, share) for request, result in zip(requests, results, strict=True)]

    def _one_by_one(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        results: list[EditResult] = []
        for request in requests:
            results += self._edit([request])
            if isinstance(results[-1].error, Fatal):  # the rest is not asked, and what was answered is not lost
                return results + [replace(results[-1], cost=0.0)] * (len(requests) - len(results))
        return results

    def _checked(self, request: EditRequest, result: EditResult, share: float) -> EditResult:
        size = None if self.editor.info.any_size else self.editor.output_size(request.image.size)
        fault = result.error or _fault(result.image, size)
        return replace(result, image=None if fault else result.image, error=fault, latency=result.latency or share)


class _Behind:
    """What is written while the next calls are made.

    Args:
        most: calls that may wait to be written; who has another one waits for the oldest.
    """

    def __init__(self, writer: RunWriter, most: int) -> None:
        self.writer, self.most = writer, most
        self._begun: deque[Future[None]] = deque()

    def write(self, write: Callable[[], None]) -> None:
        """Begin to write, after all that was begun before.

        Raises:
            OSError: what was begun before could not be written.
        """
        self._begun.append(self.writer.behind(write))
        if len(self._begun) > self.most:
            self._begun.popleft().result()

    def close(self) -> None:
        """Wait for all of it; raises as :meth:`write` does."""
        while self._begun:
            self._begun.popleft().result()


class _Slice:
    """The rollouts of one slice of the session list, one batch call at a time.

    What a call gave is written behind it: a record when its images are on disk.
    """

    def __init__(
        self,
        asker: _Asker,
        benchmark: Benchmark,
        part: Sequence[Session],
        options: Options,
        writer: RunWriter,
        behind: _Behind,
    ) -> None:
        self.asker = asker
        self.benchmark = benchmark
        self.part = part
        self.options = options
        self.writer = writer
        self.behind = behind
        self.past: dict[TurnKey, _Past] = {}

    def turn(self, repeat: int, turn: int, protocols: tuple[Protocol, ...]) -> int:
        """Make, or find, one batch call for all of ``protocols``; returns the number of its turns."""
        live = [session for session in self.part if len(session.turns) >= turn]
        keys = [TurnKey(session.id, protocol, turn, repeat) for session in live for protocol in protocols]
        if not all(key in self.writer.turns and self.writer.turns[key].slice >= len(self.part) for key in keys):
            cases = [self._case(session, protocols[0], turn, repeat) for session in live]
            asked = [TurnKey(case.session.id, protocols[0], turn, repeat) for case in cases if case.request]
            answers = self.asker.ask(
                [case.request for case in cases if case.request],
                unfinished=lambda answers: self.writer.append_turns([], _timings(asked, answers)),
            )
            self._settle(cases, answers, _timings(asked, answers), turn, repeat, protocols)
        return len(live)

    def forget(self, protocol: Protocol) -> None:
        """Its rollouts are at their end, so nothing of them is shown any more."""
        self.past = {key: past for key, past in self.past.items() if key.protocol != protocol}

    def _case(self, session: Session, protocol: Protocol, turn: int, repeat: int) -> _Case:
        """What the protocol shows the editor at this turn."""
        instruction = session.turns[turn - 1].instruction
        history: tuple[tuple[str, Image], ...] = ()
        if turn == 1:
            shown = self._keep(self.benchmark.source(session))
        elif protocol == "single-shot":
            instruction = joined_instruction(session, turn)
            shown = self._at(session, protocol, 1, repeat).input
        elif protocol == "teacher-forced":
            shown = self._keep(self.benchmark.reference(session, turn - 1))
        else:
            shown = self._own_output(session, turn, repeat)
            history = self._history(session, turn, repeat)
        if shown is None:
            reason = "reference state" if protocol == "teacher-forced" else "image"
            error = f"there is no {reason} after turn {turn - 1}"
            return _Case(session, None, instruction, error=error)
        if not self.asker.editor.accepts(instruction):
            error = "the instruction is longer than the editor's text limit"
            return _Case(session, None, instruction, input=shown, state="skipped", error=error)
        seed = seed_for(self.options.seed_policy, self.options.seed, session.id, turn, repeat)
        context = self._context(session, protocol, turn, repeat, shown)
        dialogue = self._dialogue(session, turn, repeat) if protocol == "free-running" else None
        request = EditRequest(session.id, turn, shown.image, instruction, seed, history, context, dialogue)
        return _Case(session, request, instruction, seed, shown)

    def _own_output(self, session: Session, turn: int, repeat: int) -> Kept | None:
        """What free-running goes on from: the last turn's image, or what ``on_missing`` says."""
        last = self._at(session, "free-running", turn - 1, repeat)
        return last.image or (last.input if self.options.on_missing == "carry" else None)

    def _history(self, session: Session, turn: int, repeat: int) -> tuple[tuple[str, Image], ...]:
        earlier = [self._at(session, "free-running", t, repeat) for t in range(1, turn)]
        return tuple((past.instruction, past.image.image) for past in earlier if past.image)

    def _dialogue(self, session: Session, turn: int, repeat: int) -> str | None:
        """What the last turn that was answered left."""
        earlier = (self._at(session, "free-running", t, repeat) for t in range(turn - 1, 0, -1))
        return next((past.dialogue for past in earlier if past.state == "ok"), None)

    def _context(self, session: Session, protocol: Protocol, turn: int, repeat: int, shown: Kept) -> tuple[Image, ...]:
        """The states before the one that is ``shown`` to be edited, from the source on, as the context policy says."""
        if turn == 1 or protocol == "single-shot" or self.options.context == "last":
            return ()
        states = [self._at(session, protocol, 1, repeat).input]
        for state in range(1, turn - 1) if self.options.context == "all" else ():
            if protocol == "free-running":
                states.append(self._at(session, protocol, state, repeat).image)
            else:
                states.append(self._keep(self.benchmark.reference(session, state)))
        return tuple(state.image for state in states if state and state.content != shown.content)

    def _keep(self, image: Image | None) -> Kept | None:
        return None if image is None else self.writer.keep([image])[0]

    def _at(self, session: Session, protocol: Protocol, turn: int, repeat: int) -> _Past:
        key = TurnKey(session.id, protocol, turn, repeat)
        if key not in self.past:
            record = self.writer.turns[key]
            shown, made = (Kept(self.writer, name) if name else None for name in (record.input, record.image))
            self.past[key] = _Past(record.state, record.instruction, shown, made, record.dialogue)
        return self.past[key]

    def _settle(
        self,
        cases: Sequence[_Case],
        answers: Sequence[_Answer],
        timings: Sequence[Timing],
        turn: int,
        repeat: int,
        protocols: tuple[Protocol, ...],
    ) -> None:
        """Begin to store and record a call, and remember what later turns need of it."""
        answered = iter(answers)
        settled: list[tuple[_Case, _Past, str | None]] = []
        for case in cases:
            past, error = _Past(case.state, case.instruction, case.input, None, None), case.error
            if case.request:
                result, _ = next(answered)
                state, error = _outcome(result)
                past = replace(past, state=state, image=self._keep(result.image), dialogue=result.dialogue)
            settled.append((case, past, error))
            self.past.update((TurnKey(case.session.id, protocol, turn, repeat), past) for protocol in protocols)
        self.behind.write(lambda: self._write(settled, timings, turn, repeat, protocols))

    def _write(
        self,
        settled: Sequence[tuple[_Case, _Past, str | None]],
        timings: Sequence[Timing],
        turn: int,
        repeat: int,
        protocols: tuple[Protocol, ...],
    ) -> None:
        records = [
            TurnRecord(
                session=case.session.id,
                source_id=case.session.source_id,
                protocol=protocol,
                turn=turn,
                repeat=repeat,
                task_type=case.session.turns[turn - 1].task_type,
                instruction=past.instruction,
                state=past.state,
                seed=case.seed,
                input=past.input.content if past.input else None,
                image=past.image.content if past.image else None,
                error=error,
                slice=len(self.part),
                dialogue=past.dialogue,
            )
            for case, past, error in settled
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


def _timings(keys: Sequence[TurnKey], answers: Sequence[_Answer]) -> list[Timing]:
    clock = datetime.now(UTC).isoformat(timespec="milliseconds")
    answered = zip(keys, answers, strict=False)  # none, where the first call already raised
    return [Timing(*key, result.latency, result.cost, attempts, clock) for key, (result, attempts) in answered]


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
    try:
        image.load()  # here, for it is stored and shown at the same time
    except Exception as error:  # a decoder raises whatever it stumbles over
        return BadOutput(f"an image that cannot be read ({type(error).__name__}: {error})")
    if image.mode != "RGB":
        return BadOutput(f"an image of mode {image.mode}, not RGB")
    if size is not None and image.size != size:
        return BadOutput(f"an image of {image.size[0]}x{image.size[1]} pixels, not {size[0]}x{size[1]}")
    return None
