"""The client: the values of the served scorer to the last bit, and a state for everything that can go wrong."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from mteval.config import parse_named
from mteval.errors import UsageError
from mteval.registry import create
from mteval.scorers import http as client
from mteval.scorers.base import Score, Scorer, TurnView
from mteval.scorers.http import HttpScorer
from mteval.scorers.reference_psnr import ReferencePSNR
from mteval.scorers.shapes_cc import ShapesContentConsistency
from mteval.scorers.shapes_if import ShapesInstructionFollowing
from mteval.scoring import ask
from mteval.sessions import Session, Turn
from tests.mteval.serving import Redness, served, shapes_views

SCORES = {"scorer": "redness", "scoring_version": 1, "scores": [{"state": "ok", "value": 0.25}]}
HEALTH = {"scorers": {"redness": Redness().info.as_json()}, "max_batch": 4, "versions": {}}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAITS", (0, 0))
    monkeypatch.delenv("MTEVAL_TOKEN", raising=False)


def red(count: int = 1, color: str = "red", start: Any = None) -> list[TurnView]:
    image = Image.new("RGB", (8, 8), color)
    session = Session("lamp", "lamp", (Turn("Make it red", "color_alter"),), start)
    return [TurnView(session, 1, 1, "free-running", image, image, image) for _ in range(count)]


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def say(status: int, body: Any, length: int | None = None) -> Answer:
    """Answer with a status and a body, whose length may be a lie."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        to.send_header("Content-Length", str(length or len(content)))
        to.end_headers()
        to.wfile.write(content)

    return answer


def hang_up(to: http.server.BaseHTTPRequestHandler) -> None:
    to.close_connection = True


def speak_gibberish(to: http.server.BaseHTTPRequestHandler) -> None:
    to.wfile.write(b"gibberish\r\n\r\n")


def wait(to: http.server.BaseHTTPRequestHandler) -> None:
    threading.Event().wait(0.4)


@contextmanager
def scripted(*answers: Answer) -> Iterator[tuple[HttpScorer, list[str]]]:
    """A client that has asked for health, its server giving ``answers`` to what comes next (the last one again)."""
    asked: list[str] = []
    left = [say(200, HEALTH), *answers]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            (left.pop(0) if len(left) > 1 else left[0])(self)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        scorer = HttpScorer(f"http://127.0.0.1:{server.server_address[1]}", timeout=0.2)
        assert scorer.info.id == "http/redness"
        asked.clear()
        yield scorer, asked
        server.shutdown()


@pytest.mark.parametrize("scorer", [ShapesInstructionFollowing(), ShapesContentConsistency(), ReferencePSNR()])
@pytest.mark.parametrize("max_batch", [64, 7])
def test_scores_are_those_of_the_scorer_in_process_to_the_last_bit(scorer: Scorer, max_batch: int) -> None:
    views = shapes_views(sessions=5, turns=4)
    with served(scorer, max_batch=max_batch) as server:
        found = ask(HttpScorer(server.url), views)
    expected = ask(scorer, views)
    assert {score.state for score in expected} >= {"ok"}
    assert len({score.value for score in expected}) > 1
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.state, ours.value, ours.reason) == (theirs.state, theirs.value, theirs.reason)
        assert (dict(ours.parts), dict(ours.evidence)) == (dict(theirs.parts), dict(theirs.evidence))


def test_the_info_is_the_servers_under_an_id_of_its_own() -> None:
    with served(Redness(version=7)) as server:
        assert HttpScorer(server.url).info == replace(Redness(version=7).info, id="http/redness")


def test_a_batch_is_one_request_cut_to_what_the_server_takes() -> None:
    scorer = Redness()
    with served(scorer, max_batch=4) as server:
        remote = HttpScorer(server.url)
        assert len(remote.score(red(4))) == 4
        assert remote.score([]) == []
        assert len(remote.score(red(9))) == 9
    assert scorer.sizes == [4, 4, 4, 1]


def test_states_of_the_served_scorer_stay_what_they_are() -> None:
    with served(Redness()) as server:
        found = ask(HttpScorer(server.url), [*red(), *red(color="blue"), replace(red()[0], session=unasked())])
    assert [score.state for score in found] == ["ok", "infra_error", "not_applicable"]
    assert found[1].reason == "MemoryError: blue is too much"


def unasked() -> Session:
    return Session("lamp", "lamp", (Turn("Make it green", "color_alter"),))


def test_one_of_several_scorers_has_to_be_named() -> None:
    with served(Redness(), ReferencePSNR()) as server:
        with pytest.raises(UsageError, match="serves redness, reference-psnr: choose one with scorer="):
            _ = HttpScorer(server.url).info
        with pytest.raises(UsageError, match="serves no 'rednes': did you mean redness"):
            _ = HttpScorer(server.url, scorer="rednes").info
        assert HttpScorer(server.url, scorer="reference-psnr").info.measures == "reference_psnr"


def test_a_server_that_is_not_there_at_the_start_is_a_usage_error() -> None:
    with served(Redness()) as server:
        url = server.url
    with pytest.raises(UsageError, match=rf"no answer from {url} \(ConnectionRefusedError.*start `mteval serve` there"):
        _ = HttpScorer(url).info


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (say(200, b"<html>"), r"does not answer like mteval serve \(Invalid JSON"),
        (say(200, {"status": "fine"}), r"does not answer like mteval serve \(scorers: Field required\)"),
        (say(404, b"<html>"), r"answers 404, Not Found: set MTEVAL_TOKEN to its token, or mend url="),
        (say(503, b""), "answers 503 Service Unavailable"),
        (hang_up, "RemoteDisconnected"),
        (wait, "no answer from .*TimeoutError|RemoteDisconnected"),
    ],
)
def test_what_is_no_reward_server_is_a_usage_error_too(answer: Answer, message: str) -> None:
    with scripted(answer) as (scorer, _), pytest.raises(UsageError, match=message):
        _ = HttpScorer(scorer._url, timeout=0.2).info


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_wrong_token_is_a_usage_error_that_names_the_variable(
    token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(Redness(), token="secret") as server:
        if token:
            monkeypatch.setenv("MTEVAL_TOKEN", token)
        with pytest.raises(UsageError, match=r"answers 401, send the server's token .*: set MTEVAL_TOKEN"):
            _ = HttpScorer(server.url).info
        monkeypatch.setenv("MTEVAL_TOKEN", "secret")
        assert [score.state for score in ask(HttpScorer(server.url), red())] == ["ok"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hang_up, "RemoteDisconnected"),
        (speak_gibberish, "BadStatusLine"),
        (wait, "TimeoutError: timed out"),
        (say(200, b'{"scorer"', length=99), "IncompleteRead"),
        (say(500, b"oh"), "answers 500 Internal Server Error"),
        (say(503, {"error": "busy"}), "answers 503 Service Unavailable"),
        (say(200, b"not json"), "does not answer like mteval serve (Invalid JSON"),
        (say(200, b"\x80\x04\x95"), "does not answer like mteval serve"),
        (say(200, {"scores": []}), "does not answer like mteval serve (scorer: Field required)"),
        (say(200, {**SCORES, "scores": [{"state": "ok"}]}), "a score has a value exactly when its state is ok"),
        (say(200, {**SCORES, "scores": [{"state": "bad"}]}), "does not answer like mteval serve (scores[0].state"),
        (say(200, {**SCORES, "scores": []}), "gave 0 scores for 1 turns"),
    ],
)
def test_a_failing_transport_is_a_state_after_a_bounded_number_of_tries(answer: Answer, reason: str) -> None:
    with scripted(answer) as (scorer, asked):
        (score,) = ask(scorer, red())
    assert (score.state, score.value) == ("transport_error", None)
    assert reason in score.reason
    assert asked == ["/score"] * 3


@pytest.mark.parametrize("answer", [hang_up, say(500, b""), say(200, b"{")])
def test_a_failure_that_passes_leaves_no_trace(answer: Answer) -> None:
    with scripted(answer, answer, say(200, SCORES)) as (scorer, asked):
        assert ask(scorer, red()) == [Score("ok", 0.25)]
    assert len(asked) == 3


def test_a_server_that_goes_down_takes_only_what_comes_after() -> None:
    with served(Redness()) as server:
        scorer = HttpScorer(server.url)
        assert [score.state for score in ask(scorer, red(2))] == ["ok", "ok"]
    assert [score.state for score in ask(scorer, red(2))] == ["transport_error"] * 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (say(401, {"error": "who are you?"}), "Refused: 401, who are you?"),
        (say(404, b"<html>"), "Refused: 404, Not Found"),
        (say(302, b""), "Refused: 302, Found"),
        (say(200, {**SCORES, "scoring_version": 2}), "has scoring version 2, not 1 as at the start"),
        (say(200, {**SCORES, "scores": [{"state": "ok", "value": 1.25}]}), "a score of 1.25 is outside [0.0, 1.0]"),
    ],
)
def test_a_refusal_is_not_asked_again_and_never_a_number(answer: Answer, reason: str) -> None:
    with scripted(answer) as (scorer, asked):
        (score,) = ask(scorer, red())
    assert (score.state, score.value) == ("infra_error", None)
    assert reason in score.reason
    assert len(asked) == 1


def test_a_view_that_cannot_be_sent_does_not_take_its_neighbours() -> None:
    with served(Redness()) as server:
        found = ask(HttpScorer(server.url), [*red(), *red(start=object()), *red()])
    assert [score.state for score in found] == ["ok", "infra_error", "ok"]
    assert "object is not JSON serializable" in found[1].reason


def test_a_batch_that_is_too_large_is_asked_in_single_views() -> None:
    views = shapes_views(sessions=2, turns=2)
    with served(ReferencePSNR(), max_bytes=100_000) as server:
        assert {score.state for score in ask(HttpScorer(server.url), views)} == {"ok"}
    with served(ReferencePSNR(), max_bytes=1_000) as server:
        (score, *_) = ask(HttpScorer(server.url), views)
    assert score.state == "infra_error"
    assert "413, a body of" in score.reason


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8765", "file:///etc/passwd", "ftp://x", "http://", "http://a@b", "http://a?b=c", 7]
)
def test_what_is_no_address_is_refused_at_once(url: Any) -> None:
    with pytest.raises(UsageError, match=r"url is like http://127\.0\.0\.1:8765"):
        create("scorer", "http", {"url": url})


def test_a_port_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="InvalidURL"):
        _ = HttpScorer("http://127.0.0.1:many").info


@pytest.mark.parametrize("timeout", [0, -1, "long"])
def test_a_timeout_is_a_positive_number(timeout: Any) -> None:
    with pytest.raises(UsageError, match="scorer 'http'"):
        create("scorer", "http", {"url": "http://127.0.0.1:1", "timeout": timeout})


@pytest.mark.parametrize(
    ("typed", "args"),
    [
        ("http:url=http://127.0.0.1:8765", {"url": "http://127.0.0.1:8765"}),
        (
            "http:url=https://a.b:1/c=d/,scorer=shapes-if,timeout=5",
            {"url": "https://a.b:1/c=d/", "scorer": "shapes-if", "timeout": 5},
        ),
    ],
)
def test_an_address_is_typed_as_it_is(typed: str, args: dict[str, Any]) -> None:
    named = parse_named(typed)
    assert (named.name, named.args) == ("http", args)
    create("scorer", named.name, named.args)


def test_a_server_behind_a_path_is_asked_there() -> None:
    with scripted(say(200, HEALTH), say(200, SCORES)) as (scorer, asked):
        ask(HttpScorer(f"{scorer._url}/rewards/"), red())
    assert asked == ["/rewards/health", "/rewards/score"]


def test_nothing_is_sent_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with served(Redness()) as server:
        assert [score.state for score in ask(HttpScorer(server.url), red())] == ["ok"]


def test_threads_may_share_a_client() -> None:
    found: list[Sequence[Score]] = []
    with served(Redness()) as server:
        scorer = HttpScorer(server.url)
        threads = [threading.Thread(target=lambda: found.append(ask(scorer, red(3)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [[score.value for score in scores] for scores in found] == [[1.0] * 3] * 8
