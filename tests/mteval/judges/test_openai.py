"""The judge openai against a real server: what it sends, what it reads, and every way in which it may go wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from mteval.errors import BadOutput, Blocked, CallError, Fatal, RateLimited, Transient
from mteval.judges.base import Question
from mteval.judges.openai import OpenAIJudge
from tests.mteval.judges.services import KEY, Said, Service, serving

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(Service()) as service:
        yield service


def test_what_is_sent(service: Service) -> None:
    judge = OpenAIJudge("m-2026", service.base_url, body={"top_k": 5}, detail="high")
    question = Question(("first", NOISE, "then"), tokens=9, temperature=0.5, vote=3, replied=("what?", "again"))
    (answer,) = judge.ask([question])
    assert answer.error is None
    (asked,) = service.asked
    assert asked.key == KEY and asked.later == ["what?", "again"]
    first, image, then = asked.parts
    assert (first, then) == ("first", "then")
    assert isinstance(image, Image.Image) and image.tobytes() == NOISE.tobytes()
    sent = {key: asked.fields.get(key) for key in ("model", "max_tokens", "temperature", "seed", "top_k", "logprobs")}
    assert sent == {"model": "m-2026", "max_tokens": 9, "temperature": 0.5, "seed": 3, "top_k": 5, "logprobs": None}
    assert [message["role"] for message in asked.fields["messages"]] == ["user", "assistant", "user"]


def test_large_images_are_made_smaller_where_that_is_asked(service: Service) -> None:
    OpenAIJudge("m", service.base_url, longest_side=12).ask([Question((NOISE,))])
    assert service.asked[0].images[0].size == (12, 8)


def test_log_probabilities_of_the_first_token(service: Service) -> None:
    service.reply = lambda asked: Said("7", {"7": 0.7, "8": 0.2, " 8": 0.1})
    (answer,) = OpenAIJudge("m", service.base_url, price=[1, 10]).ask([Question(("?",), 1, choices=("7", "8"))])
    assert answer.text == "7" and answer.log_probabilities is not None
    assert {word: round(math.exp(p), 6) for word, p in answer.log_probabilities.items()} == {
        "7": 0.7,
        "8": 0.2,
        " 8": 0.1,
    }
    assert service.asked[0].fields["top_logprobs"] == 20
    assert (answer.tokens_in, answer.tokens_out) == (10, 1)
    assert answer.cost == pytest.approx((10 * 1 + 1 * 10) / 1e6)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", RateLimited),
        ("500", Transient),
        ("reset", Transient),
        ("cut", Transient),
        ("timeout", Transient),
        ("quota", Fatal),
        ("key", Fatal),
        ("bad", CallError),
        ("refusal", Blocked),
        ("filter", Blocked),
        ("blocked", Blocked),
    ],
)
def test_every_fault_is_its_error_and_shows_no_key(service: Service, fault: str, kind: type[CallError]) -> None:
    service.faults = [fault]
    service.retry_after = 2.5
    (answer,) = OpenAIJudge("m", service.base_url, timeout=0.3).ask([Question(("?",))])
    assert type(answer.error) is kind
    assert KEY not in str(answer.error) and KEY[:12] not in str(answer.error)
    if isinstance(answer.error, RateLimited):
        assert answer.error.retry_after == 2.5


def test_cut_at_the_limit_and_empty(service: Service) -> None:
    service.faults = ["length", "empty"]
    cut, empty = OpenAIJudge("m", service.base_url).ask([Question(("?",)), Question(("?",))])
    assert cut.truncated and cut.error is None
    assert (empty.text, empty.error) == ("", None)


def test_an_answer_without_words_or_choices_is_no_answer(service: Service) -> None:
    service.faults = ["null", "choiceless"]
    wordless, choiceless = OpenAIJudge("m", service.base_url).ask([Question(("?",)), Question(("?",))])
    assert isinstance(wordless.error, BadOutput) and isinstance(choiceless.error, Transient)


def test_no_key_is_needed_for_a_server_of_ones_own(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    (answer,) = OpenAIJudge("m", service.base_url).ask([Question(("?",))])
    assert answer.error is None and service.asked[0].key == "none"


def test_a_server_that_is_not_there() -> None:
    (answer,) = OpenAIJudge("m", "http://127.0.0.1:9/v1").ask([Question(("?",))])
    assert isinstance(answer.error, Transient)


def test_what_changes_answers_changes_the_revision() -> None:
    url = "http://127.0.0.1:9/v1"
    made = [
        OpenAIJudge("m", url),
        OpenAIJudge("n", url),
        OpenAIJudge("m", "http://127.0.0.1:8/v1"),
        OpenAIJudge("m", url, longest_side=512),
        OpenAIJudge("m", url, body={"top_k": 5}),
    ]
    assert len({judge.info.revision for judge in made}) == len(made)
