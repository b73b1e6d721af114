"""A judge behind OpenAI's chat protocol: what arrives at it, what a client gets back, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from mteval.cli import call
from mteval.errors import BadOutput, Blocked, CallError, Fatal, RateLimited, Transient
from mteval.judges.base import Answer, JudgeInfo, Question
from mteval.judges.openai import OpenAIJudge
from mteval.serve.chat import Chat
from mteval.serve.server import RewardServer
from tests.mteval.serving import base64_of, command, running, send

CHAT, MODELS = "/v1/chat/completions", "/v1/models"
Says = Callable[[Question], Answer]


class Scripted:
    """A judge that keeps what it is asked, and how many questions at a time."""

    def __init__(self, says: Says = lambda question: Answer("fine"), batch_size: int = 1, concurrency: int = 1) -> None:
        self.info = JudgeInfo("scripted", "1", True, batch_size, concurrency)
        self.says, self.asked, self.sizes = says, list[Question](), list[int]()
        self.running = self.most = 0

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.sizes.append(len(questions))
        self.asked += questions
        answers = [self.says(question) for question in questions]
        self.running -= 1
        return answers


def client_of(server: RewardServer, **settings: Any) -> OpenAIJudge:
    return OpenAIJudge(model="scripted", base_url=f"{server.url}/v1", **settings)


def picture(seed: int, size: tuple[int, int] = (7, 5)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def request(text: str = "What is it?", **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}


def test_a_question_arrives_as_it_was_asked() -> None:
    judge = Scripted()
    replied = ("a reply", "No. Once more.", "another", "and again")
    question = Question(("one", picture(0), "two", picture(1), "three"), 77, 0.5, (), 3, replied)
    with running(Chat(judge, "scripted")) as server:
        (answer,) = client_of(server).ask([question])
    (found,) = judge.asked
    assert (answer.text, answer.error, answer.truncated, answer.log_probabilities) == ("fine", None, False, None)
    pictures = [part for part in found.parts if not isinstance(part, str)]
    assert [part.tobytes() for part in pictures] == [picture(k).tobytes() for k in (0, 1)]
    assert [part if isinstance(part, str) else None for part in found.parts] == ["one", None, "two", None, "three"]
    assert replace(found, parts=()) == replace(question, parts=())


def test_what_is_said_comes_back_with_its_probabilities_and_its_end() -> None:
    told = {"7": -0.5, " 7": -1.5, "yes": -float("inf"), "The": -2.0}
    judge = Scripted(lambda question: Answer("7", truncated=True, log_probabilities=told, tokens_in=40, tokens_out=1))
    with running(Chat(judge, "scripted")) as server:
        (answer,) = client_of(server, price=[1, 2]).ask([Question(("rate",), tokens=1, choices=("7", "8"))])
        short = send(server, request(max_tokens=1, logprobs=True, top_logprobs=2), CHAT)[1]["choices"][0]["logprobs"]
        silent = send(server, request(max_tokens=1), CHAT)[1]["choices"][0]["logprobs"]
    assert answer.log_probabilities == {**told, "yes": -9999.0}
    assert (answer.text, answer.truncated, answer.tokens_in, answer.tokens_out) == ("7", True, 40, 1)
    assert answer.cost == pytest.approx(42e-6)
    assert {"7", "8", "no", "yes"} <= set(judge.asked[0].choices), "the tokens of every scale are wanted"
    (token,) = short["content"]
    assert (token["token"], token["logprob"], bytes(token["bytes"])) == ("7", -0.5, b"7")
    assert [other["token"] for other in token["top_logprobs"]] == ["7", " 7"]
    assert silent is None
    assert judge.asked[2].choices == ()


def test_the_words_of_the_system_come_first_and_defaults_are_openais() -> None:
    judge = Scripted()
    system = {"role": "system", "content": [{"type": "text", "text": "Be strict."}]}
    with running(Chat(judge, "scripted")) as server:
        status, _ = send(
            server, {**request(), "messages": [system, *request()["messages"]], "top_p": 1, "user": "me"}, CHAT
        )
        assert send(server, request(max_completion_tokens=9, max_tokens=5, temperature=0, seed=4), CHAT)[0] == 200
    assert status == 200
    assert judge.asked == [
        Question(("Be strict.", "What is it?"), tokens=1024, temperature=1.0),
        Question(("What is it?",), tokens=9, temperature=0.0, vote=4),
    ]


@pytest.mark.parametrize(("format", "mode"), [("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB")])
def test_other_kinds_of_images_are_made_rgb(format: str, mode: str) -> None:
    judge = Scripted()
    kind = f"image/{format.lower()}"
    url = f"data:{kind};base64,{base64_of(picture(0).convert(mode), format)}"
    content = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    with running(Chat(judge, "scripted")) as server:
        assert send(server, {**request(), "messages": [{"role": "user", "content": content}]}, CHAT)[0] == 200
    (part,) = judge.asked[0].parts
    assert isinstance(part, Image.Image)
    assert (part.mode, part.size) == ("RGB", (7, 5))


def test_openais_own_client_reads_it() -> None:
    judge = Scripted(lambda question: Answer("7", log_probabilities={"7": 0.0}))
    with running(Chat(judge, "scripted")) as server:
        client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)
        assert [model.id for model in client.models.list()] == ["scripted"]
        made = client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "?"}], max_tokens=1, logprobs=True, top_logprobs=20
        )
    assert made.choices[0].message.content == "7"
    assert made.choices[0].finish_reason == "stop"
    assert made.model == "scripted"
    assert made.choices[0].logprobs is not None
    assert made.usage is not None


def said(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": role, "content": content} for role, content in messages]}


def with_image(url: str) -> dict[str, Any]:
    return said(("user", [{"type": "image_url", "image_url": {"url": url}}]))


@pytest.mark.parametrize(
    ("body", "settings", "status", "message"),
    [
        (b"{", {}, 400, "Invalid JSON"),
        ({"model": "scripted"}, {}, 400, "messages: Field required"),
        (said(), {}, 400, "messages: List should have at least 1 item"),
        (said(("tool", "x")), {}, 400, "messages[0].role"),
        (said(("user", [{"type": "audio"}])), {}, 400, "messages[0].content"),
        (said(("assistant", "x"), ("user", "y")), {}, 400, "messages begin and end with the user's"),
        (said(("user", "x"), ("assistant", "y")), {}, 400, "messages begin and end with the user's"),
        (said(("user", "x"), ("assistant", "y"), ("user", "z"), ("user", "z")), {}, 400, "messages begin and end"),
        (with_image("https://example.org/cat.png"), {}, 400, "nothing is fetched from elsewhere"),
        (with_image("file:///etc/hosts"), {}, 400, "sent as a data URL"),
        (with_image("data:image/png;base64,AAAA"), {}, 400, "none of PNG, JPEG, WEBP in base64"),
        (with_image(f"data:image/gif;base64,{base64_of(Image.new('RGB', (2, 2)), 'GIF')}"), {}, 400, "none of PNG"),
        (request(n=2), {}, 400, "n: Input should be 1"),
        (request(stream=True), {}, 400, "stream: Input should be False"),
        (request(max_tokens=0), {}, 400, "max_tokens"),
        (request(temperature=-1), {}, 400, "temperature"),
        (request(logprobs=True), {}, 400, "send max_tokens=1 with logprobs"),
        (request(logprobs=True, max_tokens=1, top_logprobs=21), {}, 400, "top_logprobs"),
        ({**request(), "model": "gpt-5"}, {}, 404, "no model 'gpt-5' is served, but 'scripted'"),
        (request(), {"path": "/score"}, 404, "no POST /score here: GET /v1/models or POST /v1/chat/completions"),
        (None, {"path": CHAT, "method": "GET"}, 404, "no GET /v1/chat/completions here"),
        (request(), {"Content_Type": "text/plain"}, 415, "application/json"),
        (b" " * 10**6, {}, 413, "a body of 1000000 bytes, but a request may hold 500000: send less at once"),
        (request(), {"method": "PUT"}, 501, "Unsupported method ('PUT')"),
    ],
)
def test_what_is_refused_has_a_status_and_openais_error(
    body: Any, settings: dict[str, str], status: int, message: str
) -> None:
    judge = Scripted()
    with running(Chat(judge, "scripted"), max_bytes=500_000) as server:
        found, answered = send(server, body, **{"path": CHAT, **settings})
        assert judge.asked == []
        assert send(server, request(), CHAT)[0] == 200, "the next one is answered"
    assert found == status
    assert sorted(answered["error"]) == ["code", "message", "param", "type"]
    assert message in answered["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, MODELS])
@pytest.mark.parametrize("given", [None, "Bearer wrong", "secret"])
def test_a_wrong_token_is_a_401(path: str, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    with running(Chat(Scripted(), "scripted"), token="secret") as server:
        status, answered = send(server, b"{" * 10**6, path, "POST" if path == CHAT else "GET", **headers)
        assert send(server, request(), CHAT, Authorization="Bearer secret")[0] == 200
    assert (status, answered["error"]["code"]) == (401, "invalid_api_key")


def test_a_client_with_the_token_as_its_key_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Chat(Scripted(), "scripted"), token="a-secret-token") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "a-secret-token")
        assert client_of(server).ask([Question(("?",))])[0].text == "fine"
        monkeypatch.setenv("OPENAI_API_KEY", "another-token")
        assert isinstance(client_of(server).ask([Question(("?",))])[0].error, Fatal)


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (Blocked("not this"), Blocked),
        (RateLimited("slowly", 7.2), RateLimited),
        (RateLimited("slowly"), RateLimited),
        (Transient("hiccup"), Transient),
        (Fatal("no more"), Fatal),
        (BadOutput("nothing"), CallError),
    ],
)
def test_an_error_of_the_judge_is_the_same_kind_of_error_at_the_client(
    error: CallError, becomes: type[CallError]
) -> None:
    with running(Chat(Scripted(lambda question: Answer(error=error)), "scripted")) as server:
        (answer,) = client_of(server).ask([Question(("?",))])
    assert type(answer.error) is becomes
    assert str(error) in str(answer.error)
    if isinstance(answer.error, RateLimited) and isinstance(error, RateLimited):
        assert answer.error.retry_after == (8 if error.retry_after else None)


def test_what_a_judge_raises_is_an_answer_too() -> None:
    def says(question: Question) -> Answer:
        if question.parts == ("bad",):
            raise MemoryError("too much")
        return Answer("fine")

    with running(Chat(Scripted(says), "scripted")) as server:
        (answer,) = client_of(server).ask([Question(("bad",))])
        assert isinstance(answer.error, Transient)
        assert "MemoryError: too much" in str(answer.error)
        assert client_of(server).ask([Question(("good",))])[0].text == "fine"


@pytest.mark.parametrize(("batch_size", "concurrency"), [(1, 1), (4, 1), (1, 3), (3, 2)])
def test_questions_that_wait_are_asked_together_and_each_gets_its_own_answer(batch_size: int, concurrency: int) -> None:
    gate = threading.Event()

    def says(question: Question) -> Answer:
        gate.wait(5)
        return Answer(f"to {question.parts[0]}")

    judge = Scripted(says, batch_size, concurrency)
    with running(Chat(judge, "scripted")) as server, ThreadPoolExecutor(24) as pool:
        client = client_of(server)
        found = [pool.submit(client.ask, [Question((str(k),))]) for k in range(24)]
        threading.Timer(0.3, gate.set).start()
        assert [future.result()[0].text for future in found] == [f"to {k}" for k in range(24)]
    assert sorted(str(question.parts[0]) for question in judge.asked) == sorted(map(str, range(24))), "each once"
    assert max(judge.sizes) == batch_size
    assert judge.most == concurrency


def test_the_command_serves_a_judge_with_arguments_under_a_name_that_pins_them() -> None:
    with command("--judge", "shapes-pixels") as (_, plain), command("--judge", "shapes-pixels:bias=0.5") as (_, biased):
        assert plain.startswith("serving the judge shapes-pixels at http://127.0.0.1:")
        assert "shapes-pixels-" in biased
        url, name = biased.split()[-3], biased.split()[3]
        client = openai.OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0)
        assert [model.id for model in client.models.list()] == [name]
        made = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "Is it good?"}])
        assert made.choices[0].message.content == "I rate pictures on a scale, and was told of none."
        with pytest.raises(openai.NotFoundError, match=f"but '{name}'"):
            client.chat.completions.create(model="shapes-pixels", messages=[{"role": "user", "content": "?"}])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--judge", "shapes-pixels", "--scorers", "shapes-if"), "leave out --scorers or --judge"),
        (("--judge", "shapes-pixel"), "unknown judge 'shapes-pixel': did you mean shapes-pixels"),
        (("--judge", "shapes-pixels:bia=1"), "takes no argument 'bia'"),
        (("--judge", "shapes-pixels", "--host", "0.0.0.0"), "give a --token with it"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    typed: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MTEVAL_TOKEN", raising=False)
    assert call(["serve", *typed]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
