"""The protocols: what an editor is shown, what becomes of its answers, what a resumed run repeats."""

from __future__ import annotations

import inspect
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mteval.editors.base import BadOutput, Blocked, EditRequest, EditResult, Fatal, RateLimited, Transient
from mteval.pace import Retry
from mteval.rollout import Options, joined_instruction, roll_out, seed_for, total_calls, total_edits
from mteval.sessions import PROTOCOLS, TurnRecord
from mteval.store import RunFolder, RunWriter
from tests.mteval.fakes import SIDE, Faulty, Painter, Rows, paint


def run(
    path: Path, editor: Any, turns: int = 3, limit: int = 6, bench: Rows | None = None, **options: Any
) -> RunFolder:
    bench = bench or Rows()
    sessions = bench.sessions(turns, limit)
    chosen = Options(**{"protocols": PROTOCOLS, "batch_size": editor.info.batch_size, **options})
    with RunWriter(path) as writer:
        writer.start({}, [session.id for session in sessions])
        roll_out(editor, bench, sessions, chosen, writer)
    return RunFolder(path)


def find(folder: RunFolder, session: str, protocol: str, turn: int, repeat: int = 1) -> TurnRecord:
    wanted = (session, protocol, turn, repeat)
    return next(record for record in folder.turn_records() if record.key == wanted)


def pixels(folder: RunFolder, content: str | None) -> Any:
    assert content is not None
    return np.asarray(folder.image(content))


def test_each_protocol_shows_what_the_table_of_metrics_says(tmp_path: Path) -> None:
    bench, editor = Rows(), Painter()
    folder = run(tmp_path, editor, bench=bench)
    session = bench.sessions(3)[2]
    for t in (1, 2, 3):
        free, forced, single = (find(folder, session.id, protocol, t) for protocol in PROTOCOLS)
        own = find(folder, session.id, "free-running", t - 1).image if t > 1 else None
        start = np.asarray(bench.source(session))
        assert np.array_equal(pixels(folder, free.input), pixels(folder, own) if own else start)
        assert np.array_equal(pixels(folder, forced.input), np.asarray(bench.reference(session, t - 1)))
        assert np.array_equal(pixels(folder, single.input), start)
        assert free.instruction == forced.instruction == session.turns[t - 1].instruction
        assert single.instruction == ". ".join(turn.instruction for turn in session.turns[:t])
        assert free.seed == forced.seed == single.seed


def test_turn_one_is_asked_once_and_recorded_for_every_protocol(tmp_path: Path) -> None:
    editor = Painter()
    folder = run(tmp_path, editor, turns=2)
    assert sum(call[0].turn == 1 for call in editor.calls) == 2, "two slices, once each"
    for session in Rows().sessions(2):
        first = [find(folder, session.id, protocol, 1) for protocol in PROTOCOLS]
        assert len({(record.image, record.input, record.seed, record.instruction) for record in first}) == 1


def test_history_is_given_in_free_running_alone_oldest_first(tmp_path: Path) -> None:
    editor = Painter()
    folder = run(tmp_path, editor)
    session = Rows().sessions(3)[0]
    for turn in (2, 3):
        asked = [
            request for call in editor.calls for request in call if (request.session, request.turn) == ("s000", turn)
        ]
        free, forced, single = asked  # the protocols run in this order
        assert forced.history == single.history == ()
        assert [text for text, _ in free.history] == [item.instruction for item in session.turns[: turn - 1]]
        for t, (_, image) in enumerate(free.history, start=1):
            assert np.array_equal(np.asarray(image), pixels(folder, find(folder, "s000", "free-running", t).image))


@pytest.mark.parametrize(("policy", "states"), [("last", []), ("first+last", [0]), ("all", [0, 1, 2])])
def test_the_context_policy_picks_what_is_shown_beside_the_image(
    tmp_path: Path, policy: str, states: list[int]
) -> None:
    editor = Painter()
    folder = run(tmp_path, editor, turns=4, limit=1, context=policy)
    session = Rows().sessions(4)[0]
    asked = [request for call in editor.calls for request in call]
    assert all(not request.context for request in asked if request.turn == 1)
    free, forced, single = (request for request in asked if request.turn == 4)
    own = [pixels(folder, find(folder, "s000", "free-running", t).image) for t in (1, 2)]
    for images, request in (
        ([np.asarray(Rows().source(session)), *own], free),
        ([np.asarray(Rows().reference(session, t)) for t in range(3)], forced),
    ):
        assert len(request.context) == len(states)
        for state, image in zip(states, request.context, strict=True):
            assert np.array_equal(images[state], np.asarray(image))
    assert single.context == ()


def test_the_context_never_shows_an_image_twice(tmp_path: Path) -> None:
    editor = Faulty({("s000", 1): Blocked("no"), ("s000", 2): Blocked("no")})
    run(tmp_path, editor, turns=3, limit=1, context="all", on_missing="carry", protocols=("free-running",))
    (last,) = (request for call in editor.calls for request in call if request.turn == 3)
    assert last.context == () and np.array_equal(
        np.asarray(last.image), np.asarray(Rows().source(Rows().sessions(3)[0]))
    )


@given(st.integers(0, 2**63 - 1), st.text(max_size=8), st.integers(1, 20), st.integers(1, 20), st.integers(1, 5))
def test_seed_policies(seed: int, session: str, turn: int, other: int, repeat: int) -> None:
    assert "protocol" not in inspect.signature(seed_for).parameters
    per_turn = [seed_for("per-turn", seed, session, t, repeat) for t in (turn, other)]
    assert (per_turn[0] == per_turn[1]) == (turn == other)
    assert len({seed_for("per-session", seed, session, t, repeat) for t in (turn, other)}) == 1
    assert seed_for("per-session", seed, session, turn, repeat) != seed_for("per-session", seed, session, 1, repeat + 1)
    assert seed_for("fixed", seed, session, turn, repeat) == seed
    assert 0 <= per_turn[0] < 2**63


def test_seeds_are_the_same_on_every_machine() -> None:
    assert seed_for("per-turn", 0, "test-00000", 1, 1) == 4380480990228541641
    assert seed_for("per-session", 0, "test-00000", 1, 1) == 7442360005962424453


def test_a_too_long_instruction_is_skipped_and_never_cut(tmp_path: Path) -> None:
    editor = Painter()
    folder = run(tmp_path, editor, turns=6, limit=1)
    states = [find(folder, "s000", "single-shot", t).state for t in range(1, 7)]
    lengths = [len(joined_instruction(Rows().sessions(6)[0], t)) for t in range(1, 7)]
    assert states == ["ok" if length < 60 else "skipped" for length in lengths]
    assert "skipped" in states
    assert all(len(request.instruction) < 60 for call in editor.calls for request in call)
    assert all(find(folder, "s000", "free-running", t).state == "ok" for t in range(1, 7))


@pytest.mark.parametrize(
    ("fault", "state", "error"),
    [
        (Blocked("nudity"), "blocked", "Blocked: nudity"),
        (BadOutput("grey"), "failed", "BadOutput: grey"),
        (RuntimeError("boom"), "failed", "RuntimeError: boom"),
        (Transient("hiccup"), "failed", "Transient: hiccup"),
        (EditResult(), "failed", "BadOutput: no image and no error"),
        (EditResult(Image.new("RGB", (SIDE, 5))), "failed", "BadOutput: an image of 12x5 pixels, not 12x12"),
        (EditResult(Image.new("RGB", (0, 0))), "failed", "BadOutput: an image of 0x0 pixels, not 12x12"),
        (EditResult(Image.new("L", (SIDE, SIDE))), "failed", "BadOutput: an image of mode L, not RGB"),
    ],
)
def test_a_faulty_answer_is_a_state_of_that_turn_alone(tmp_path: Path, fault: Any, state: str, error: str) -> None:
    folder = run(tmp_path, Faulty({("s001", 2): fault}))
    for protocol in PROTOCOLS:
        record = find(folder, "s001", protocol, 2)
        assert (record.state, record.error, record.image) == (state, error, None)
        assert [find(folder, name, protocol, 2).state for name in ("s000", "s002", "s003")] == ["ok"] * 3
    assert find(folder, "s001", "free-running", 3).state == "not_run"
    assert find(folder, "s001", "teacher-forced", 3).state == "ok"
    assert find(folder, "s001", "single-shot", 3).state == "ok"


def test_carry_goes_on_from_the_last_image(tmp_path: Path) -> None:
    faults = {("s001", 2): Blocked("no"), ("s001", 3): Blocked("no")}
    folder = run(tmp_path, Faulty(faults), turns=4, on_missing="carry")  # type: ignore[arg-type]
    last = find(folder, "s001", "free-running", 4)
    assert last.state == "ok"
    assert last.input == find(folder, "s001", "free-running", 1).image


def test_transient_errors_are_asked_again_and_the_wait_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    waits: list[float] = []
    retry = Retry(attempts=4, first_wait=1.0, sleep=waits.append)
    editor = Faulty({("s000", 1): Transient("a"), ("s001", 1): RateLimited("b", retry_after=7.0)}, times=2)
    folder = run(tmp_path, editor, turns=1, limit=2, retry=retry)
    assert waits == [7.0, 7.0]
    assert [record.state for record in folder.turn_records()] == ["ok"] * 6
    assert [(timing.attempts, timing.cost) for timing in folder.timings()] == [(3, 0.75)] * 2
    waits.clear()
    gives_up = run(tmp_path / "b", Faulty({("s000", 1): Transient("a")}), turns=1, limit=1, retry=retry)
    assert waits == [1.0, 2.0, 4.0]
    assert find(gives_up, "s000", "free-running", 1).state == "failed"
    waits.clear()
    run(tmp_path / "c", Faulty({("s000", 1): RateLimited("b", retry_after=86400)}), turns=1, limit=1, retry=retry)
    assert waits == [], "a wait beyond longest_wait is a failure at once"


@pytest.mark.parametrize("raised", [True, False])
def test_fatal_ends_the_run_and_nothing_before_it_is_lost(tmp_path: Path, raised: bool) -> None:
    class Dying(Painter):
        def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
            if len(self.calls) < 3:
                return super().edit(requests)
            if raised:
                raise Fatal("key refused")
            return [EditResult(error=Fatal("key refused")) for _ in requests]

    with pytest.raises(Fatal, match="key refused"):
        run(tmp_path, Dying())
    before = RunFolder(tmp_path).turn_records()
    assert len(before) == 4 * 5, "turn 1 for three protocols, turns 2 and 3 of the first"
    whole = run(tmp_path, Painter()).turn_records()
    assert whole == run(tmp_path / "undisturbed", Painter()).turn_records()


def test_a_wrong_number_of_answers_fails_the_batch(tmp_path: Path) -> None:
    class Short(Painter):
        def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
            return super().edit(requests)[:-1]

    folder = run(tmp_path, Short(), turns=1)
    assert {record.error for record in folder.turn_records()} == {
        "BadOutput: 3 results for 4 requests",
        "BadOutput: 1 results for 2 requests",
    }


def test_ragged_sessions_end_where_they_end(tmp_path: Path) -> None:
    folder = run(tmp_path, Painter(), bench=Rows(ragged=True))
    turns = {record.turn for record in folder.turn_records() if record.session == "s001"}
    assert turns == {1, 2}


def test_a_finished_run_asks_nothing_and_a_longer_one_repeats_only_the_cut_slice(tmp_path: Path) -> None:
    run(tmp_path, Painter(), limit=5)
    again = Painter()
    run(tmp_path, again, limit=5)
    run(tmp_path, again, limit=3)
    assert again.calls == []
    longer = Painter()
    folder = run(tmp_path, longer, limit=6)
    assert {request.session for call in longer.calls for request in call} == {"s004", "s005"}
    assert {record.slice for record in folder.turn_records() if record.session >= "s004"} == {2}
    assert folder.turn_records() == run(tmp_path / "undisturbed", Painter(), limit=6).turn_records()


@settings(max_examples=25)
@given(data=st.data())
def test_resuming_from_any_number_of_whole_lines_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("resume")
    undisturbed = run(path, Painter(), turns=3, limit=5)
    whole = undisturbed.turn_records()
    lines = (path / "rollouts.jsonl").read_bytes().splitlines(keepends=True)
    kept = data.draw(st.integers(0, len(lines)))
    (path / "rollouts.jsonl").write_bytes(b"".join(lines[:kept]))
    assert run(path, Painter(), turns=3, limit=5).turn_records() == whole


def test_the_planned_numbers_of_edits_and_calls_are_those_made(tmp_path: Path) -> None:
    bench, editor = Rows(ragged=True), Painter()
    counted: list[int] = []
    sessions = bench.sessions(3)
    options = Options(PROTOCOLS, batch_size=4, repeats=2)
    with RunWriter(tmp_path) as writer:
        writer.start({}, [session.id for session in sessions])
        roll_out(editor, bench, sessions, options, writer, counted.append)
    assert total_edits(sessions, options) == sum(counted) == sum(len(call) for call in editor.calls)
    assert total_calls(sessions, options) == len(editor.calls)


def test_repeats_differ_by_their_seed_alone(tmp_path: Path) -> None:
    folder = run(tmp_path, Painter(), repeats=2)
    first, second = (find(folder, "s000", "free-running", 1, repeat) for repeat in (1, 2))
    assert first.seed != second.seed
    assert first.input == second.input


def test_a_missing_reference_leaves_that_turn_out(tmp_path: Path) -> None:
    class Gap(Rows):
        def reference(self, session: Any, turn: int) -> Image.Image | None:
            return None if (session.id, turn) == ("s001", 1) else super().reference(session, turn)

    folder = run(tmp_path, Painter(), bench=Gap())
    record = find(folder, "s001", "teacher-forced", 2)
    assert (record.state, record.error) == ("not_run", "there is no reference state after turn 1")
    assert find(folder, "s001", "teacher-forced", 3).state == "ok"


def test_a_changed_image_takes_its_scores_with_it(tmp_path: Path) -> None:
    from tests.mteval.test_store import score

    class Drawn(Painter):
        """Another batch size, other pixels: what a GPU does by a grey level."""

        def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
            made = super().edit(requests)
            return [EditResult(paint(result.image, 0, len(requests))) for result in made if result.image]

    run(tmp_path, Drawn(), turns=1, limit=5)
    with RunWriter(tmp_path) as writer:
        writer.append_scores([score("s000"), score("s004")])
    folder = run(tmp_path, Drawn(), turns=1, limit=6)
    assert [record.session for record in folder.score_records()] == ["s000"], "only the cut slice was made again"


def test_images_are_stored_while_the_next_call_is_made_and_records_after_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images of a call are held back until the next one has begun: a run that waits for them would stand still."""
    begun = [threading.Event() for _ in range(3)]
    stored, append = RunWriter._put_image, RunWriter.append_turns
    waited: list[bool] = []

    class Watched(Painter):
        def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
            begun[requests[0].turn - 1].set()
            return super().edit(requests)

    def put(self: RunWriter, image: Image.Image) -> str:
        made = {turn for turn in (1, 2) if np.asarray(image)[turn].mean() > 90}  # rows that are painted already
        if made and len(made) < 3:
            waited.append(begun[max(made)].wait(20))
        return stored(self, image)

    def checked(self: RunWriter, records: Sequence[TurnRecord], timings: Sequence[Any]) -> None:
        for record in records:
            assert record.image and self.image_path(record.image).is_file()
            assert record.input and self.image_path(record.input).is_file()
        append(self, records, timings)

    monkeypatch.setattr(RunWriter, "_put_image", put)
    monkeypatch.setattr(RunWriter, "append_turns", checked)
    folder = run(tmp_path, Watched(), turns=3, limit=4, protocols=("free-running",))
    assert len(folder.turn_records()) == 12 and len(waited) >= 8 and all(waited)


@pytest.mark.parametrize("size", [4, 1])
def test_what_cannot_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    def full(self: RunWriter, image: Image.Image) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunWriter, "_put_image", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, Painter(size))
    assert RunFolder(tmp_path).turn_records() == []


def test_an_image_that_is_read_at_its_first_use_is_read_once_and_a_broken_one_is_a_bad_output(tmp_path: Path) -> None:
    class Opened(Painter):
        def answer(self, request: EditRequest) -> EditResult:
            made = super().answer(request)
            assert made.image
            buffer = io.BytesIO()
            made.image.save(buffer, "PNG")
            cut = 60 if (request.session, request.turn) == ("s001", 2) else None
            return EditResult(Image.open(io.BytesIO(buffer.getvalue()[:cut])))

    folder = run(tmp_path / "opened", Opened(), protocols=("free-running",))
    plain = run(tmp_path / "plain", Painter(), protocols=("free-running",))
    broken = find(folder, "s001", "free-running", 2)
    assert broken.state == "failed" and str(broken.error).startswith("BadOutput: an image that cannot be read (")
    same = [record for record in plain.turn_records() if record.session != "s001"]
    assert [record for record in folder.turn_records() if record.session != "s001"] == same
