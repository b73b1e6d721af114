"""Asking: what comes back is a reading or a state, once, from the cache where it was said before."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mteval.errors import Blocked, CallError, Fatal, RateLimited, Transient, UsageError
from mteval.judges.asking import Asked, Asker, opened
from mteval.judges.base import Answer, JudgeInfo, Question
from mteval.judges.cache import Cache, key_of
from mteval.judges.contract import SCALES, FreeText, Reasoned
from mteval.pace import Retry, Stopped

SCORE = Reasoned(SCALES["0-10"])
RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")


class Scripted:
    """Says what it is told to, then 5; remembers the questions."""

    def __init__(self, *answers: Answer | str, concurrency: int = 1, batch_size: int = 1) -> None:
        self.info = JudgeInfo("scripted", "1", concurrency=concurrency, batch_size=batch_size)
        self.answers = list(answers)
        self.questions: list[Question] = []
        self.lock = threading.Lock()

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        with self.lock:
            self.questions += questions
            made = [self.answers.pop(0) if self.answers else '{"score": 5}' for _ in questions]
        return [Answer(item) if isinstance(item, str) else item for item in made]


def asked(text: str = "How many?", vote: int = 0) -> Asked:
    return Asked((text, RED), SCORE, vote)


def asker(judge: Scripted, cache: Cache | None = None, attempts: int = 3) -> Asker:
    return Asker(judge, cache, Retry(attempts, sleep=lambda seconds: None))


def test_the_format_is_the_end_of_the_prompt() -> None:
    judge = Scripted()
    (reading,) = asker(judge).ask([asked()])
    assert reading.value == 5
    assert judge.questions == [Question(("How many?", RED, SCORE.format), SCORE.tokens)]


@pytest.mark.parametrize(
    ("error", "state", "calls"),
    [
        (Transient("no connection"), "transport_error", 3),
        (RateLimited("slower", 0.0), "transport_error", 3),
        (Blocked("no"), "refused", 1),
        (CallError("the image is too large"), "infra_error", 1),
    ],
)
def test_what_was_not_answered_is_a_state(error: CallError, state: str, calls: int) -> None:
    judge = Scripted(*[Answer(error=error)] * 3)
    (reading,) = asker(judge).ask([asked()])
    assert (reading.state, reading.value) == (state, None)
    assert str(error) in reading.reason
    assert len(judge.questions) == calls


def test_what_passes_is_asked_again() -> None:
    judge = Scripted(Answer(error=Transient("reset")), Answer(error=RateLimited("slower")), '{"score": 3}')
    of = asker(judge)
    assert [reading.value for reading in of.ask([asked()])] == [3]
    assert of.usage.calls == 3 and of.usage.states == Counter(ok=1)


def test_fatal_is_raised_and_nothing_more_is_asked() -> None:
    judge = Scripted(Answer(error=Fatal("the key was refused")))
    with pytest.raises(Fatal, match="key was refused"):
        asker(judge).ask([asked(f"{k}?") for k in range(50)])
    assert len(judge.questions) < 5


def test_one_repair_and_no_more() -> None:
    judge = Scripted("I like it", '{"score": 8}')
    (reading,) = asker(judge).ask([asked()])
    assert reading.value == 8 and reading.evidence["first_reply"] == "I like it"
    said, told = judge.questions[1].replied
    assert said == "I like it" and SCORE.format in told

    judge = Scripted("I like it", "I do", '{"score": 8}')
    (reading,) = asker(judge).ask([asked()])
    assert (reading.state, reading.text) == ("parse_error", "I like it")
    assert len(judge.questions) == 2


def test_a_truncated_reply_is_repaired_too() -> None:
    cut = Answer("Let me think", truncated=True)
    assert asker(Scripted(cut)).ask([asked()])[0].value == 5
    (reading,) = asker(Scripted(cut, cut)).ask([asked()])
    assert (reading.state, reading.value) == ("truncated", None)


def test_what_was_read_is_asked_once_for_all_runs(tmp_path: Path) -> None:
    first, second = Scripted("prose", "prose", '{"score": 4}'), Scripted()
    known = Cache(tmp_path / "cache" / "judges.sqlite")
    of = asker(first, known)
    assert [reading.state for reading in of.ask([asked("a"), asked("b")])] == ["parse_error", "ok"]
    again = asker(second, Cache(tmp_path / "cache" / "judges.sqlite"))
    readings = again.ask([asked("a"), asked("b")])
    assert [reading.value for reading in readings] == [5, 4]
    assert [question.parts[0] for question in second.questions] == ["a"]
    assert (again.usage.hits, again.usage.calls) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        Question(("How many ?", RED)),
        Question((RED, "How many?")),
        Question(("How many?", BLUE)),
        Question(("How many?", RED.resize((2, 8)))),
        Question(("How many?", RED), tokens=7),
        Question(("How many?", RED), temperature=0.1),
        Question(("How many?", RED), choices=("1",)),
        Question(("How many?", RED), vote=1),
        Question(("How many?", RED), replied=("5", "why?")),
        Question(("How ", "many?", RED)),
    ],
)
def test_another_question_has_another_key(other: Question) -> None:
    info, question = JudgeInfo("j", "1"), Question(("How many?", RED))
    assert key_of(info, question) == key_of(info, Question(("How many?", RED.copy())))
    assert key_of(info, other) != key_of(info, question)
    assert key_of(replace(info, revision="2"), question) != key_of(info, question)
    assert key_of(replace(info, id="k"), question) != key_of(info, question)


def test_log_probabilities_survive_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    answer = Answer("7", log_probabilities={"7": -0.1, " 8": -2.5}, tokens_in=3, tokens_out=1)
    cache.put("k", answer)
    assert cache.get("k") == answer and cache.get("other") is None


def test_batches_and_order() -> None:
    judge = Scripted(*[f'{{"score": {k}}}' for k in range(7)], batch_size=3)
    readings = asker(judge).ask([asked(f"{k}") for k in range(7)])
    assert [reading.value for reading in readings] == list(range(7))


def test_questions_run_side_by_side_up_to_the_judges_concurrency() -> None:
    most, running, lock = 0, 0, threading.Lock()
    both = threading.Barrier(4)

    class Slow(Scripted):
        def ask(self, questions: Sequence[Question]) -> list[Answer]:
            nonlocal most, running
            with lock:
                running += 1
                most = max(most, running)
            both.wait(10)  # raises unless four are here together
            with lock:
                running -= 1
            return [Answer('{"score": 1}') for _ in questions]

    of = asker(Slow(concurrency=4))
    assert [reading.value for reading in of.ask([asked(f"{k}") for k in range(8)])] == [1] * 8
    assert most == 4


def test_a_judge_that_is_down_is_not_asked_for_a_while() -> None:
    now = 0.0
    judge = Scripted(*[Answer(error=Transient("connection refused"))] * 9)
    of = Asker(judge, None, Retry(1, sleep=lambda seconds: None), clock=lambda: now)
    readings = of.ask([asked(f"{k}") for k in range(40)])
    assert {reading.state for reading in readings} == {"transport_error"}
    assert len(judge.questions) == 3
    assert "does not answer" in readings[-1].reason and "connection refused" in readings[-1].reason
    now, judge.answers = 60.0, []
    assert of.ask([asked()])[0].value == 5


def test_text_that_is_read_has_no_number() -> None:
    (reading,) = asker(Scripted("OPEN")).ask([Asked(("What does it say?", RED), FreeText())])
    assert (reading.state, reading.value, reading.text) == ("ok", None, "OPEN")


def test_scorers_that_name_one_judge_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"name": "openai", "args": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}}
    assert opened(named, "a") is opened(dict(named), "b")
    assert opened({**named, "args": {**named["args"], "model": "n"}}, "a") is not opened(named, "a")  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="vlm-if needs a judge: --judge"):
        opened(None, "vlm-if")
    with pytest.raises(UsageError, match="did you mean openai"):
        opened("opnai", "vlm-if")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        opened({"name": "openai", "args": {"model": "secret-less"}}, "vlm-if")


def test_a_wait_ends_where_the_run_is_to_end() -> None:
    stop, began = threading.Event(), time.monotonic()
    of = Asker(Scripted(*[Answer(error=RateLimited("later", 60.0))] * 50), None, Retry(5, sleep=None))
    of.expect_answers(stop)
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
        of.ask([asked()])
    assert time.monotonic() - began < 10
