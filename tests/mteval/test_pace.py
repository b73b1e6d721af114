"""Calls side by side: never more than allowed, fewer after a 429, never dearer than the budget, the same records."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mteval.editors.base import EditorInfo, EditRequest, EditResult, Fatal, RateLimited, Transient
from mteval.pace import LONGEST_WAIT, Budget, Pace, Retry
from mteval.rollout import Options, roll_out
from mteval.sessions import PROTOCOLS
from mteval.store import RunFolder, RunWriter
from tests.mteval.editors.services import KEY, Service, serving
from tests.mteval.fakes import Painter, Rows


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def answer(error: Exception | None = None, cost: float = 0.0) -> list[EditResult]:
    return [EditResult(error=error, cost=cost)]  # type: ignore[arg-type]


def test_no_more_calls_than_allowed_run_side_by_side() -> None:
    pace, lock = Pace(3), threading.Lock()
    running, most = 0, 0

    def edit() -> list[EditResult]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return answer()

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: pace.call(edit), range(60)))
    assert most == 3


def test_a_429_halves_the_calls_and_good_answers_bring_them_back() -> None:
    clock = Clock()
    pace = Pace(16, clock, clock.sleep)
    for expected in (8, 4, 2, 1, 1):
        clock.now += 1
        pace.call(lambda: answer(RateLimited("slow down")))
        assert pace.limit == expected
    for _ in range(500):
        before = pace.limit
        pace.call(answer)
        assert before <= pace.limit <= 16
    assert pace.limit == 16


def test_answers_to_calls_that_were_on_their_way_halve_only_once() -> None:
    pace, gate = Pace(8), threading.Barrier(8)

    def edit() -> list[EditResult]:
        gate.wait()
        return answer(RateLimited("slow down"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: pace.call(edit), range(8)))
    assert pace.limit == 4


def test_nobody_begins_before_the_time_that_was_asked_for() -> None:
    clock = Clock()
    pace = Pace(4, clock, clock.sleep)
    pace.call(lambda: answer(RateLimited("slow down", retry_after=30)))
    pace.call(answer, waited=True)
    assert clock.now == 0
    pace.call(answer)
    assert clock.now == 30
    pace.call(lambda: answer(RateLimited("tomorrow", retry_after=LONGEST_WAIT + 1)))
    pace.call(answer)
    assert clock.now == 30, "who asks for too long is not waited for"


def test_who_waits_ends_when_another_gives_up(tmp_path: Path) -> None:
    """One waits for the time that it was told, one for its back-off, the others for those that are on their way."""

    class Busy(Elsewhere):
        def answer(self, request: EditRequest) -> EditResult:
            if request.session == "s000":
                waiting.wait(20)
                raise Fatal("no more")
            error = RateLimited("later", retry_after=300.0) if request.session == "s001" else Transient("no")
            waiting.set()
            return EditResult(error=error)

    waiting, editor, began = threading.Event(), Busy(), time.monotonic()
    sessions = Rows(size=12).sessions(1)
    options = Options(PROTOCOLS, 1, concurrency=4, retry=Retry(first_wait=200.0, sleep=None))
    with RunWriter(tmp_path) as writer:
        writer.start({}, [session.id for session in sessions])
        with pytest.raises(Fatal, match="no more"):
            roll_out(editor, Rows(size=12), sessions, options, writer)
    assert time.monotonic() - began < 20 and len(editor.calls) <= 4, "nothing was asked again"


def test_ctrl_c_ends_a_run_that_waits_for_a_service(tmp_path: Path) -> None:
    service = Service(kinds=["429"], share=1.0, retry_after=120)
    typed = ["run", "--model", "openai-images", "--model-args", "base_url={url}/v1,sizes=64x64", "--limit", "6"]
    with serving(service):
        command = [sys.executable, "-m", "mteval", *(part.format(url=service.url) for part in typed), "--output"]
        process = subprocess.Popen(
            [*command, str(tmp_path / "run")],
            env={**os.environ, "OPENAI_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while len(service.asked) < 3 and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3 and said.decode().splitlines()[-1].endswith("the same command resumes")


def test_a_budget_is_never_exceeded_whatever_runs_side_by_side() -> None:
    budget = Budget(1.0, spent=0.1, expected=0.04)
    asked = []

    def ask(_: int) -> bool:
        def edit() -> list[EditResult]:
            asked.append(1)
            time.sleep(0.001)
            return answer(cost=0.04)

        try:
            budget.call(1, edit)
        except Fatal:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(ask, range(60)))
    assert sum(done) == len(asked) == 22
    assert budget.spent == pytest.approx(0.98)


def test_a_dearer_edit_raises_what_is_expected() -> None:
    budget = Budget(1.0)
    budget.call(1, lambda: answer(cost=0.6))
    with pytest.raises(Fatal, match=r"\$0\.60 are spent and the next edit may cost \$0\.60, more than --max-cost 1"):
        budget.call(1, lambda: answer(cost=0.0))


class Elsewhere(Painter):
    """An editor that is paid and asked side by side; knows how many calls there were."""

    def __init__(self, wait: float = 0.0) -> None:
        super().__init__()
        self.info = EditorInfo("elsewhere", "1", concurrency=4)
        self.wait = wait

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        time.sleep(self.wait)
        return super().edit(requests)


def play(path: Path, editor: Painter, concurrency: int, max_cost: float | None = None) -> RunFolder:
    sessions = Rows(size=12).sessions(3)
    options = Options(PROTOCOLS, batch_size=1, concurrency=concurrency, max_cost=max_cost)
    with RunWriter(path) as writer:
        writer.start({}, [session.id for session in sessions])
        try:
            roll_out(editor, Rows(size=12), sessions, options, writer)
        finally:
            writer.canonicalise()
    return RunFolder(path)


def test_side_by_side_gives_the_bytes_of_one_after_the_other(tmp_path: Path) -> None:
    one, other = (play(tmp_path / str(n), Elsewhere(0.001), n) for n in (1, 6))
    assert (one.path / "rollouts.jsonl").read_bytes() == (other.path / "rollouts.jsonl").read_bytes()
    assert len(other.timings()) == 12 * (1 + 3 * 2)


def test_what_was_on_its_way_when_the_editor_gave_up_is_recorded_and_nothing_asked_twice(tmp_path: Path) -> None:
    class GivesUp(Elsewhere):
        def answer(self, request: EditRequest) -> EditResult:
            if len(self.calls) > 20:
                raise Fatal("no more")
            return super().answer(request)

    first, second = GivesUp(0.002), Elsewhere(0.002)
    with pytest.raises(Fatal, match="no more"):
        play(tmp_path, first, 4)
    assert sum(timing.cost > 0 for timing in RunFolder(tmp_path).timings()) == 20
    play(tmp_path, second, 4)
    assert len(second.calls) == 12 * 7 - 20


def test_a_run_stops_before_it_is_too_dear_and_goes_on_with_more_money(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="goes on"):
        play(tmp_path, Elsewhere(), 4, max_cost=5.1)  # 0.25 an edit
    spent = sum(timing.cost for timing in RunFolder(tmp_path).timings())
    assert 4.0 < spent <= 5.1
    with pytest.raises(Fatal):
        play(tmp_path, Elsewhere(), 4, max_cost=5.1)
    assert sum(timing.cost for timing in RunFolder(tmp_path).timings()) <= 5.1
    play(tmp_path, Elsewhere(), 4, max_cost=21.1)
    assert sum(timing.cost for timing in RunFolder(tmp_path).timings()) == 0.25 * 12 * 7


def test_a_hiccup_of_one_session_leaves_the_others_alone(tmp_path: Path) -> None:
    class Hiccup(Elsewhere):
        def answer(self, request: EditRequest) -> EditResult:
            if request.session == "s003":
                return EditResult(error=Transient("no"), cost=0.0)
            return super().answer(request)

    editor = Hiccup()
    sessions = Rows(size=12).sessions(1)
    options = Options(PROTOCOLS, batch_size=1, concurrency=4)
    waits: list[float] = []
    options = Options(PROTOCOLS, 1, concurrency=4, retry=type(options.retry)(sleep=waits.append))
    with RunWriter(tmp_path) as writer:
        writer.start({}, [session.id for session in sessions])
        roll_out(editor, Rows(size=12), sessions, options, writer)
    states = {record.session: record.state for record in RunFolder(tmp_path).turn_records()}
    assert states.pop("s003") == "failed" and set(states.values()) == {"ok"}
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
